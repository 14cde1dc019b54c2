"""Export the classifier of a published run, or its synthetic images.

`savedmodel` is for TensorFlow Serving and KServe, `onnx` for ONNX Runtime; `folder` with ARM writes only the images
that this arm uses. Temperature scaling is built into an exported model: its output are the probabilities of
`counterweight predict`. It is loaded again by another library and compared with the original before the folder gets its
name. The results of a run in object storage need OUT.
"""

import importlib.util
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from components.shared.arms import parse_synthetic_key, source_of
from components.shared.errors import UserError
from components.shared.files import atomic_folder, write_text
from components.shared.image_set import encode_png
from components.shared.log import log_line
from components.shared.patient_metadata import encode, inputs, table_of
from counterweight.keras_start import start_keras
from counterweight.run import check_writable
from counterweight.run_options import choose_output, read_options

if TYPE_CHECKING:
    import keras
    import pandas as pd

    from components.evaluate.predict.published import Run
    from components.shared.records import MetadataEncoding
    from counterweight.published import Arm

OPTIONS = ("RUN", "FORMAT", "ARM", "SEEDS", "OUT")
DETAILS = "export.json"
"""Describes an export."""
TOLERANCE = 1e-4
"""Maximum difference of a probability from the original's; float32 kernels in another order differ by about 1e-6."""
RANDOM_IMAGES = 16
INPUT, METADATA_INPUT = "image", "metadata"
VERSION = "1"
"""Folder of a SavedModel; model servers expect one for each version."""
ONNX_MODEL = "model.onnx"
ONNX_PACKAGES = ("tf2onnx", "onnx", "onnxruntime")

Loaded = Callable[[dict[str, np.ndarray]], np.ndarray]
"""From the inputs of an exported model, by their names, to (N, classes) probabilities."""


def build_ensemble(arm: "Arm") -> "keras.Model":
    """Return one model of all classifiers of an arm: the mean of their probabilities after temperature scaling.

    Returns:
        A model from (N, S, S, 3) float32 in [0, 255], RGB, and (N, D) float32 metadata if the classifiers have them, to
        (N, classes) float32.
    """
    import keras

    from components.evaluate.statistics.metrics import MIN_PROBABILITY

    given = [keras.Input((arm.image_size, arm.image_size, 3), dtype="float32", name=INPUT)]
    if arm.encoding is not None:
        given.append(keras.Input((len(inputs(arm.encoding)),), dtype="float32", name=METADATA_INPUT))
    shown = given if arm.encoding is not None else given[0]
    scaled = []
    for number, (model, temperature) in enumerate(zip(arm.models, arm.temperatures, strict=True)):
        model.name = f"classifier_{number}"  # all have one name, which must be unique within a model
        logs = keras.ops.log(keras.ops.maximum(model(shown, training=False), MIN_PROBABILITY))
        scaled.append(keras.ops.softmax(logs / temperature))
    mean = keras.layers.Average(name="probabilities")(scaled) if len(scaled) > 1 else scaled[0]
    ensemble = keras.Model(shown, mean, name="counterweight")
    zeros = [np.zeros((1, *each.shape[1:]), np.float32) for each in given]
    ensemble(zeros if arm.encoding is not None else zeros[0])  # Keras exports what has been called
    return ensemble


def write_savedmodel(model: "keras.Model", folder: Path) -> Loaded:
    """Export to `1/`, and load it with TensorFlow alone."""
    import tensorflow as tf

    model.export(str(folder / VERSION), format="tf_saved_model", verbose=False)
    serve = tf.saved_model.load(str(folder / VERSION)).signatures["serving_default"]
    return lambda given: np.asarray(next(iter(serve(**{k: tf.constant(v) for k, v in given.items()}).values())))


def write_onnx(model: "keras.Model", folder: Path) -> Loaded:
    """Export to `model.onnx`, and load it with ONNX Runtime.

    Raises:
        UserError: `export.missing_packages` or `export.unsupported`.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"FORMAT=onnx requires {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed",
            "use `make export`, which installs them, or run `uv sync --inexact --group export`",
            "export.missing_packages",
            packages=missing,
        )
    import onnxruntime

    path = folder / ONNX_MODEL
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of NumPy, from the converter
            model.export(str(path), format="onnx", verbose=False)
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # converter and runtime raise undocumented exceptions
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            "FORMAT=onnx cannot represent an operation of this network, such as the grouped convolutions of convnext",
            "use FORMAT=savedmodel",
            "export.unsupported",
        ) from error
    return lambda given: np.asarray(session.run(None, given)[0])


WRITERS: Mapping[str, Callable[["keras.Model", Path], Loaded]] = {"savedmodel": write_savedmodel, "onnx": write_onnx}
FORMATS = (*WRITERS, "folder")


def random_metadata(encoding: "MetadataEncoding", count: int) -> "pd.DataFrame":
    """Return the metadata of `count` images at random, among them missing ones."""
    rng = np.random.default_rng(0)
    values: dict[str, list[Any]] = {"age": [None, 5.0, 50.0, 95.0], "sex": [None, *encoding.sex]}
    values |= {"localization": [None, *encoding.localization]}
    return table_of([{name: some[rng.integers(len(some))] for name, some in values.items()} for _ in range(count)])


def compare(arm: "Arm", exported: Loaded) -> float:
    """Return the largest difference of a probability between an exported model and the original, on random images.

    Half of the images are noise; the others are smooth, as photographs are. Metadata are random, and some are missing.

    Raises:
        UserError: `export.differs`.
    """
    from PIL import Image

    rng, size = np.random.default_rng(0), arm.image_size
    coarse = rng.integers(0, 256, (RANDOM_IMAGES, 4, 4, 3), np.uint8)
    smooth = [np.asarray(Image.fromarray(it).resize((size, size), Image.Resampling.BICUBIC)) for it in coarse]
    images = np.concatenate([np.stack(smooth), rng.integers(0, 256, (RANDOM_IMAGES, size, size, 3), np.uint8)])
    given = {INPUT: images.astype(np.float32)}
    metadata = table_of([])
    if arm.encoding is not None:
        metadata = random_metadata(arm.encoding, len(images))
        given[METADATA_INPUT] = encode(arm.encoding, metadata)
    expected, found = arm.predict(images, metadata), exported(given)
    worst = float(np.abs(found - expected).max()) if found.shape == expected.shape else np.inf
    if not worst <= TOLERANCE:  # NaN as well
        raise UserError(
            f"the exported model differs from the original by {worst:.2g} in a probability",
            "choose another FORMAT, and report this as a bug",
            "export.differs",
            difference=str(worst),
        )
    return worst


def _describe(run: "Run", arm: "Arm", name: str, difference: float) -> dict[str, Any]:
    """Return the content of `export.json` for a model."""
    from counterweight import published

    size, metadata_input = arm.image_size, None
    if arm.encoding is not None:
        width = len(inputs(arm.encoding))
        metadata_input = {"name": METADATA_INPUT, "shape": [None, width], "dtype": "float32", "content": "see metadata"}
    return {
        "format": name,
        **published.describe(run, arm),
        "input": {
            "name": INPUT,
            "shape": [None, size, size, 3],
            "dtype": "float32",
            "range": [0, 255],
            "channels": "RGB",
            "resize": f"to {size} x {size} px with Lanczos, without keeping the aspect ratio",
        },
        **({"metadata_input": metadata_input} if metadata_input else {}),
        "output": {"shape": [None, len(arm.classes)], "dtype": "float32", "content": "calibrated probabilities"},
        "temperature_built_in": True,
        "decision": "positive if the summed probability of positive_classes exceeds threshold",
        "largest_difference": difference,
    }


def export_model(run: "Run", name: str, first_only: bool, file_format: str, folder: Path) -> None:
    """Export the classifier of an arm into a new folder.

    Raises:
        UserError: a model is not the run's, packages are missing, or the exported model differs from the original.
    """
    from counterweight import published

    arm = published.load_arm(run, name, first_only)
    with atomic_folder(folder) as part:
        difference = compare(arm, WRITERS[file_format](build_ensemble(arm), part))
        write_text(part / DETAILS, json.dumps(_describe(run, arm, file_format, difference), indent=1))
    log_line(
        "export", f"arm: {name}; models: {len(arm.models)}; largest difference from the original: {difference:.1e}"
    )


def export_images(run: "Run", arm: str, folder: Path) -> None:
    """Export synthetic images into a new folder, as `<source>/<class>/<number>.png`.

    Args:
        run: the run.
        arm: only the images of this arm's source; empty for all.
        folder: the folder.

    Raises:
        UserError: the arm uses no synthetic images, or the images are damaged.
    """
    from counterweight import published

    keys = [key for key in published.synthetic_keys(run) if not arm or parse_synthetic_key(key)[0] == source_of(arm)]
    if not keys:
        raise UserError(
            f"there are no synthetic images{f' of the arm {arm}' if arm else ' in the run'}",
            "omit ARM, or choose an arm that uses synthetic images" if arm else "choose another run",
            "export.no_images",
            arm=arm,
        )
    counts: dict[str, int] = {}
    with atomic_folder(folder) as part:
        for key in keys:
            source, dx = parse_synthetic_key(key)
            place = part / source / dx
            place.mkdir(parents=True)
            count = 0
            for count, pixels in enumerate(published.iter_synthetic(run, key), start=1):
                (place / f"{count:06}.png").write_bytes(encode_png(pixels))
            counts[f"{source}/{dx}"] = count
        sources = {name: source.model_dump() for name, source in run.results.sources.items()}
        details = {"format": "folder", "notice": published.NOTICE, "images": counts, "synthetic": True}
        write_text(part / DETAILS, json.dumps(details | {"sources": sources}, indent=1))
    log_line("export", f"{sum(counts.values()):,} synthetic images of {', '.join(counts)}")


def _choose_format(options: Mapping[str, str]) -> str:
    name = options["FORMAT"]
    if name not in FORMATS:
        raise UserError(f"FORMAT is {name!r}", f"choose from {', '.join(FORMATS)}", "option.invalid", option="FORMAT")
    if options["SEEDS"] not in ("", "all", "first"):
        raise UserError(f"SEEDS is {options['SEEDS']!r}", "choose all or first", "option.invalid", option="SEEDS")
    if name == "folder" and options["SEEDS"]:
        raise UserError("SEEDS is given with FORMAT=folder", "omit SEEDS: images have no classifier", "option.conflict")
    return name


def _is_export(folder: Path) -> bool:
    """Return whether a folder has the files of an export and no others, on its first level."""
    try:
        details = json.loads((folder / DETAILS).read_text(encoding="utf-8"))
        sources = {key.partition("/")[0] for key in details.get("images", {})}
        is_known = details["format"] in FORMATS
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
    return is_known and {path.name for path in folder.iterdir()} <= {DETAILS, VERSION, ONNX_MODEL, *sources}


def _refuse_foreign(folder: Path) -> None:
    """Raise if a folder has other files than those of an export, which would be deleted."""
    if folder.is_dir() and any(folder.iterdir()) and not _is_export(folder):
        raise UserError(
            f"OUT is {folder}, which has files that are not of an export",
            "choose a new or empty folder",
            "export.foreign_files",
            path=str(folder),
        )


def run(words: list[str], out: TextIO) -> None:
    """Run the command; `out` receives its last lines."""
    options = read_options(words, OPTIONS, FORMAT=f"choose from {', '.join(FORMATS)}")
    name = _choose_format(options)
    folder = choose_output(options, f"export-{name}")
    check_writable(folder, "OUT")
    _refuse_foreign(folder)
    start_keras()
    from counterweight import published, reevaluate

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="counterweight-")))
        opened = reevaluate.open_published(options["RUN"], scratch)
        if name == "folder":
            export_images(opened, published.choose_arm(opened, options["ARM"]) if options["ARM"] else "", folder)
        else:
            arm = published.choose_arm(opened, options["ARM"])
            export_model(opened, arm, options["SEEDS"] == "first", name, folder)
    print(f"{published.NOTICE}\nexport: {os.path.relpath(folder)}", file=out)
