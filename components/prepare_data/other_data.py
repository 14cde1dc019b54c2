"""Read all images that are not of the data: the external set, and synthetic images of other generators."""

import warnings
from pathlib import Path

from components.prepare_data.external import LABEL, prepare_external
from components.prepare_data.prepare import NO_EXTERNAL
from components.prepare_data.synthetic import read_held_out, read_source
from components.shared.arms import GAN, Scope
from components.shared.data_identity import check_others_unchanged
from components.shared.files import EXTERNAL, atomic_folder
from components.shared.image_set import read_header
from components.shared.log import log_line
from components.shared.parameters import synthetic_sources
from components.shared.records import DataClasses, SyntheticSource, SyntheticSources, load_record, write_record


def read_other_data(
    synthetic: str,
    training_data: str | Path,
    test_data: str | Path,
    count: int,
    max_bad_images: int,
    seed: int,
    out: str | Path,
    identity: str = "",
    scope: Scope = "rare",
    external: str = NO_EXTERNAL,
    columns: str = "auto",
    duplicates: str = "refuse",
) -> None:
    """Read the external set, and all sources of synthetic images other than the GANs of the run.

    Args:
        synthetic: the parameter of this name; see `parameters.synthetic_sources`.
        training_data, test_data: folders that prepare_data wrote.
        count: number of synthetic images that an arm uses per class; of each class at most `synthetic.POOL_RATIO`
            times as many are read.
        max_bad_images: maximum number of unusable images of each place, which are listed and skipped.
        seed: seed of the run; decides which synthetic images are read, and in which order.
        out: folder to write: `<source>.parquet`, an image set of the split `train`, for each source, `sources.json`
            and, with an external set, `external.parquet`.
        identity: identity of the places before they are read; empty for no check. See `others_identity`.
        scope: the option `synthetic_scope`: images of the rare or of all classes.
        external: the parameter `data_external`; its classes must be a subset of the data's.
        columns: the parameter `data_columns`, which the external set may follow.
        duplicates: the parameter `data_duplicates`; see `prepare_external`.

    Raises:
        UserError: a place is unusable, synthetic images reproduce held-out images, or external images are of the run;
            nothing is written then.
    """
    training, test = Path(training_data), Path(test_data)
    header, rare = read_header(training / "train.parquet"), load_record(training / "classes.json", DataClasses).rare
    required = list(header.classes) if scope == "all" else rare
    places = {name: place for name, place in synthetic_sources(synthetic).items() if name != GAN}
    held_out = {"validation": training / "validation.parquet", "test": test / "test.parquet"}
    described: dict[str, SyntheticSource] = {}
    with atomic_folder(out) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns about images that are rejected
        if external.strip() != NO_EXTERNAL:
            prepare_external(
                external,
                header.classes,
                header.image_size,
                duplicates,
                max_bad_images,
                test / "splits.csv",
                folder / EXTERNAL,
                (columns, "auto"),
                (training / "train.parquet", *held_out.values()),
            )
            held_out["external"] = folder / EXTERNAL
        unseen = read_held_out(held_out if places else {})
        for name, place in places.items():
            part = folder / f"{name}.parquet"
            described[name] = read_source(name, place, required, header, unseen, count, max_bad_images, seed, part)
        if identity:
            check_others_unchanged(identity, synthetic, external)
        write_record(folder / "sources.json", SyntheticSources(sources=described))
    if not places:
        log_line(LABEL, "no images of other generators")
