"""Compare the candidate of a run with the champion, the promoted model of an earlier run, on the same test lesions.

The champion may have been trained or selected on images that are test images now. Lesions that it has seen are excluded
for both sides; see `find_seen`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from components.evaluate import drift
from components.evaluate.predict import probabilities as of_classifiers
from components.evaluate.predict.inputs import Classifier, Inputs
from components.evaluate.predict.published import Run, open_run
from components.evaluate.results import calibrate_arms, labels_of
from components.evaluate.statistics import calibration, inference
from components.evaluate.statistics.calibration import ArmCalibration
from components.evaluate.statistics.compare import decide_verdict, lesion_differences, weight_differences
from components.evaluate.statistics.inference import LEVEL, Bootstrap
from components.evaluate.statistics.metrics import Predictions, Sample
from components.shared.errors import UserError
from components.shared.image_set import Pixels, read_header, read_rows
from components.shared.log import log_line
from components.shared.published import find_file
from components.shared.records import (
    Champion,
    ChampionComparison,
    ChampionFigure,
    ChampionMetric,
    ChosenChampion,
    Difference,
    Estimate,
    Permutation,
    Results,
    Verdict,
    load_record,
)
from components.shared.seeds import derive_seed

METRICS: tuple[ChampionMetric, ...] = get_args(ChampionMetric)
MIN_LESIONS = 6
"""Minimum number of lesions of the rare classes: with fewer, the paired test cannot reach the 5 % level (2 / 2⁵)."""
DUPLICATE_BITS = 24
"""Maximum number of different bits, of 256, of the perceptual hashes of two files of one image."""
MIN_PATTERN_BITS = 8
"""Minimum number of set bits of a perceptual hash; an image with fewer has no pattern and matches nothing."""
_COMPARED_HASHES, _COMPARED_OTHERS = 64, 2**13
"""Hashes of both sides that are compared at a time; they bound the memory, and results fit into the CPU cache."""


@dataclass(frozen=True)
class OpenedChampion:
    """The champion, opened.

    Attributes:
        chosen: which run it is.
        run: its published run.
        arm: its arm.
        classifiers: of the arm, one for each seed.
        listed: image_id, lesion_id, split, pixel_sha256 and perceptual_hash, and if known patient_id, of its images.
    """

    chosen: ChosenChampion
    run: Run
    arm: str
    classifiers: tuple[Classifier, ...]
    listed: pd.DataFrame


def open_champion(folder: Path, test_set: Path) -> OpenedChampion | None:
    """Open the champion, and check that it fits the images of this run; None if no earlier run has a candidate.

    Args:
        folder: that `read_champion` wrote.
        test_set: the test set of this run.

    Raises:
        UserError: `champion.other_data`; a file differs from the published one, or is damaged.
    """
    chosen = load_record(folder / "champion.json", ChosenChampion)
    if chosen.run is None:
        return None
    run, arm, header = open_run(chosen.run.place, partial(find_file, folder)), chosen.run.arm, read_header(test_set)
    if (run.classes, run.record.image_size) != (header.classes, header.image_size) or arm not in run.arms:
        raise UserError(
            f"the champion {run.name} has other classes, arms or another image size than this run",
            "set champion to a run of the same classes and image size, or to none",
            "champion.other_data",
            value=run.name,
        )
    return OpenedChampion(chosen, run, arm, tuple(run.classifiers(arm)), _read_list(run))


def _read_list(run: Run) -> pd.DataFrame:
    """Return the images of a published run, from its `splits.csv`.

    Raises:
        UserError: `champion.no_splits`.
    """
    needed = ["image_id", "lesion_id", "split", "pixel_sha256", "perceptual_hash"]
    try:
        listed = _read_splits(run.file("splits.csv"))
        if set(needed) - set(listed) or listed[["image_id", "lesion_id", "split"]].isna().any(axis=None):
            raise ValueError("a column is missing")
        _hash_words(listed["perceptual_hash"])
    except ValueError as error:  # pandas' errors are subclasses of it
        raise UserError(
            f"{run.name}: splits.csv does not list the images of a run",
            "use the unchanged files of one run",
            "champion.no_splits",
        ) from error
    return listed


def _read_splits(path: Path) -> pd.DataFrame:
    """Return a `splits.csv` as text; only an empty cell is missing, since `NA` or `null` may be an id."""
    return pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""])


def _hash_words(hashes: pd.Series) -> np.ndarray:
    """Return (M, 4) uint64 of the perceptual hashes that exist; raise a ValueError for one of another length."""
    text = "".join(hashes.dropna())
    if not hashes.dropna().str.fullmatch("[0-9a-f]{64}").all():
        raise ValueError("not a perceptual hash")
    return np.frombuffer(bytes.fromhex(text), np.uint64).reshape(-1, 4)


def find_seen(opened: OpenedChampion, images: pd.DataFrame) -> np.ndarray:
    """Return (N,) bool, the images that the champion has seen, in any form that ids or content show.

    It has seen an image if it was trained or selected on it, on one with the same id of the lesion or patient, or on
    one whose perceptual hash is that of a near-duplicate in the same position.

    Args:
        opened: the champion.
        images: image_id, lesion_id, pixel_sha256 and perceptual_hash, and if known patient_id, of N images.
    """
    known = opened.listed[opened.listed["split"].isin(["train", "validation"])]
    hashes = {digest for classifier in opened.classifiers for digest in classifier.record.seen}
    seen = images["pixel_sha256"].str[:16].isin(hashes | set(known["pixel_sha256"].str[:16]))
    for name in ("lesion_id", "patient_id"):
        if name in images and name in known:
            seen |= images[name].notna() & images[name].isin(set(known[name].dropna()))
    near = images["perceptual_hash"].notna().to_numpy()
    marks = np.asarray(seen, bool).copy()
    marks[near] |= _is_near(_hash_words(images["perceptual_hash"]), _hash_words(known["perceptual_hash"]))
    lesions = set(images.loc[marks, "lesion_id"])
    return marks | images["lesion_id"].isin(lesions).to_numpy()


def _is_near(words: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return (N,) bool, whether a hash, (N, 4) uint64, is near one of others, (M, 4); a block is compared at a time."""
    near, columns = np.zeros(len(words), bool), np.ascontiguousarray(others.T)
    for start in range(0, len(words), _COMPARED_HASHES):
        block = words[start : start + _COMPARED_HASHES]
        for other in range(0, len(others), _COMPARED_OTHERS):
            known = columns[:, other : other + _COMPARED_OTHERS]
            apart = np.zeros((len(block), known.shape[1]), np.uint16)
            for word in range(4):
                apart += np.bitwise_count(block[:, None, word] ^ known[word])
            near[start : start + _COMPARED_HASHES] |= (apart <= DUPLICATE_BITS).any(axis=1)
    return near & (np.bitwise_count(words).sum(axis=1) >= MIN_PATTERN_BITS)


def read_images(path: Path, split: str, listed: Path) -> pd.DataFrame:
    """Return what `find_seen` needs of an image set, with the patients of `splits.csv`, where it has them."""
    rows = read_rows(path, split, ["image_id", "lesion_id", "dx", "pixel_sha256", "perceptual_hash"])
    if listed.is_file():
        table = _read_splits(listed)
        if "patient_id" in table:
            return rows.merge(table[["image_id", "patient_id"]].drop_duplicates("image_id"), "left", "image_id")
    return rows


def predict(opened: OpenedChampion, pixels: Pixels) -> Predictions:
    """Return the champion's predictions for images, and for their metadata if it gets any, calibrated as published.

    Raises:
        UserError: `model.invalid`.
    """
    run, name = opened.run, f"the champion {opened.run.name}"
    try:
        probabilities = of_classifiers.predict({name: opened.classifiers}, {"test": pixels})["test"][name]
    except UserError as error:
        raise UserError(
            f"{name}: {error.message}", "set champion to another run, or to none", "model.invalid", arm=opened.arm
        ) from error
    fitted = run.calibrate(opened.arm)[opened.arm]
    return _plain(probabilities, fitted, np.isin(run.classes, run.record.malignant))


def _plain(probabilities: np.ndarray, fitted: ArmCalibration, malignant: np.ndarray) -> Predictions:
    """Return predictions without alarms and prior correction, which are not compared."""
    return replace(calibration.apply(probabilities, fitted, malignant), alarms=None, corrected=None)


def _of_rows(predictions: Predictions, seeds: int, rows: np.ndarray) -> Predictions:
    """Return the predictions of the first models for some images, (N,) bool."""
    return Predictions(predictions.probabilities[:seeds, rows], predictions.scaled[:seeds, rows])


def compare(
    rows: pd.DataFrame,
    classes: Sequence[str],
    rare: Sequence[str],
    candidate: Predictions,
    champion: Predictions,
    seen: np.ndarray,
    seed: int,
) -> ChampionComparison:
    """Compare two models on the lesions that the champion has not seen.

    The models of both sides are paired in the order of their seeds; if one side has more, the rest is not used.

    Args:
        rows: lesion_id and dx of the N test images.
        classes: names.
        rare: the classes of the primary figure.
        candidate, champion: their predictions.
        seen: (N,) bool, the images to exclude.
        seed: seed of the resampling.
    """
    kept, seeds = ~seen, min(len(candidate.probabilities), len(champion.probabilities))
    sides = {"candidate": _of_rows(candidate, seeds, kept), "champion": _of_rows(champion, seeds, kept)}
    chosen = rows[kept]
    is_rare = rows["dx"].isin(rare)
    lesions, all_rare = chosen["lesion_id"].nunique(), set(rows.loc[is_rare, "dx"])
    rare_lesions = chosen.loc[is_rare[kept], "lesion_id"].nunique()
    few = rare_lesions < MIN_LESIONS or set(chosen["dx"]) & all_rare != all_rare
    figures: dict[ChampionMetric, ChampionFigure] = {}
    permutation: Permutation | None = None
    verdict: Verdict = "not established"
    if not few:
        sample = Sample(labels_of(chosen, classes), chosen["lesion_id"].to_numpy(str), tuple(classes))
        figures = _measure(sample, sides, tuple(rare), seed)
        weighted = weight_differences(sample, lesion_differences(sample, sides["candidate"], sides["champion"]), rare)
        p, arrangements = inference.sign_flip(weighted, derive_seed(seed, "champion permutation"))
        permutation = Permutation(p=p if seeds == 1 else None, passed=p < LEVEL, draws=arrangements)
        primary = figures[METRICS[0]].difference
        verdict = decide_verdict(primary.low, primary.high, p, float(weighted.sum()), seeds)
    return ChampionComparison(
        seeds=seeds,
        lesions=int(lesions),
        rare_lesions=int(rare_lesions),
        excluded_lesions=int(rows.loc[seen, "lesion_id"].nunique()),
        excluded_images=int(seen.sum()),
        seen_validation_images=0,
        few=bool(few),
        figures=figures,
        permutation=permutation,
        verdict=verdict,
    )


def _measure(
    sample: Sample, sides: Mapping[str, Predictions], rare: tuple[str, ...], seed: int
) -> dict[ChampionMetric, ChampionFigure]:
    """Return metric → both sides and their difference."""
    bootstrap = Bootstrap(sample, sides, rare, derive_seed(seed, "champion"))
    same = np.array_equal(sides["candidate"].scaled, sides["champion"].scaled)
    figures: dict[ChampionMetric, ChampionFigure] = {}
    for metric in METRICS:
        candidate, champion = (
            Estimate(**bootstrap.difference(metric, side).model_dump()) for side in ("candidate", "champion")
        )
        difference = bootstrap.difference(metric, "candidate", "champion")
        if same and difference.value is not None:
            # The same models: the interval would be that of the pseudo-lesions.
            difference = Difference(value=0.0, low=0.0, high=0.0)
        figures[metric] = ChampionFigure(candidate=candidate, champion=champion, difference=difference)
    return figures


def compare_champion(
    folder: Path,
    inputs: Inputs,
    listed: Path,
    test_pixels: Pixels,
    rows: Mapping[str, pd.DataFrame],
    probabilities: Mapping[str, Mapping[str, np.ndarray]],
    results: Results,
) -> Champion:
    """Return the comparison of a run's candidate with the champion, and the drift of the data since.

    Args:
        folder: that `read_champion` wrote.
        inputs: inputs of the run.
        listed: `splits.csv` of the run; it may be absent.
        test_pixels: the test images.
        rows: set → dx of its images.
        probabilities: set → arm → (seeds, N, classes).
        results: of the run.

    Raises:
        UserError: as in `open_champion`, `predict` and `drift.measure`.
    """
    test_set, arm, seed = inputs.sets["test"], results.advice.arm, results.run.seed
    opened = open_champion(folder, test_set)
    if opened is None or opened.chosen.run is None:
        log_line("evaluate", "champion: no earlier run has a candidate, so nothing is compared")
        return Champion(run=None, comparison=None, drift=None)
    tested = read_images(test_set, "test", listed)
    seen = find_seen(opened, tested)
    validation = find_seen(opened, read_images(inputs.sets["validation"], "validation", listed))
    images = {dx: counts.images for dx, counts in results.splits["train"].items()}
    of_arm = {arm: probabilities["validation"][arm]}
    fitted = calibrate_arms(rows["validation"], of_arm, results.classes, results.run.malignant, images)[arm]
    candidate = _plain(probabilities["test"][arm], fitted, np.isin(results.classes, results.run.malignant))
    champion = predict(opened, test_pixels)
    compared = compare(tested, results.classes, inputs.rebalanced, candidate, champion, seen, seed)
    compared = compared.model_copy(update={"seen_validation_images": int(validation.sum())})
    log_line(
        "evaluate",
        f"against the champion {opened.chosen.run.run}: {compared.verdict}; {compared.lesions:,} test lesions, "
        f"{compared.excluded_lesions:,} excluded that the champion has seen",
    )
    changed = drift.measure(opened.run, opened.listed, results, inputs.train_set, seed)
    return Champion(run=opened.chosen.run, comparison=compared, drift=changed)
