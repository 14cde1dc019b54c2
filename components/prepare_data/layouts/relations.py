"""Decide which images belong together: lesions, patients and copies; ids that cannot be one are missing."""

import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np
import pandas as pd

from components.prepare_data.layouts.checks import FORMULA_STARTS
from components.prepare_data.layouts.inventory import base_name
from components.prepare_data.layouts.tables import join_some
from components.prepare_data.texts import STRING, Positions, Texts, first_rows, have_several, iterate
from components.shared.errors import printable

Unit = Literal["lesion", "patient", "image"]

_OF = r"(?:lesion|patient|subject|case|image|id|number)*"
_MISSING = re.compile(
    rf"{_OF}(?:"
    "unknown|notknown|unk|unspecified|notspecified|undefined|undetermined|missing|blank|empty|default|placeholder|"
    "n[ad]|nan|nat|none|null|nil|no|tbd|tba|pending|unavailable|notavailable|notprovided|notapplicable|notrecorded|"
    "notgiven|notstated|notassigned|unassigned|unidentified|withheld|redacted|anonymous|anonymi[sz]ed|deidentified|"
    rf"unbekannt|inconnu|desconocido){_OF}|x{{1,3}}"
)
"""Words, without blanks and signs, that stand for a missing id, also in `no lesion id` and `Unknown_id`."""
_SPREADSHEET_ERROR = re.compile(
    r"#(n/?a|div/0|ref|value|name|num|null|spill|calc|error|bezug|wert|zahl|nv)[!?]?", re.IGNORECASE
)
_ZEROS_OR_NINES = re.compile(r"0+|9{2,}")
"""Numbers that may stand for a missing id or be one of a sequence."""
_CODE = re.compile(r"-(1|9+)")
_MAY_BE_MISSING = r"[^1-8]*|[^\w-]*-1(\.0*)?\W*"
"""Values of which some are placeholders; most ids are none of them."""
MIN_IMPLAUSIBLE_IMAGES = 10
MAX_SHARE_OF_CLASS = 0.10
MAX_TIMES_OTHERS = 5
"""A lesion with this many images, this share of its class and this multiple of nearly all other lesions is none."""
MAX_NUMBERED = 20
"""More files that extend one name by a number alone are a sequence, not copies."""

_DECIMALS = re.compile(r"^(-?\d+)(\.0*|,0{1,2})$")
_ZEROS = re.compile(r"^0+(?=\d+$)")
_SEPARATOR = re.compile(r"[ _.(-]")
_NUMBER = re.compile(r"[ _.-]*\(?\d+\)?")
_VERSION = re.compile(
    r"(?:.+_original_)?(.+)[._](?:jpe?g|png|bmp|tiff?|webp)(?:\.rf\.|_)[0-9a-f-]{16,36}", re.IGNORECASE
)
"""Names of versions of an image: Roboflow's `NAME_jpg.rf.HASH`, and Augmentor's `CLASS_original_NAME.jpg_UUID`."""
_WORD = (
    r"(?:aug(?!ust)\w*|(?:(?:horizontal|vertical|h|v|lr|ud)[ _.-]*)?flip\w*|mirror\w*|rot(?:at\w*)?|crop(?!land)\w*|"
    r"zoom\w*|shear\w*|shift\w*|bright\w*|contrast\w*|jitter\w*|blur\w*|nois[ey]\w*|orig(?:inal)?|copy|kopie)"
)
_CHANGED = re.compile(rf"(.+?)[ _.-]+{_WORD}[ _.()\d-]*(?:deg\w*)?", re.IGNORECASE)
_CHANGED_BEFORE = re.compile(
    r"(?:aug(?:mented)?|[hv]?flip(?:ped)?|rot(?:ated)?|copy of)[ _.-]*\d*[ _.-]+(.+)", re.IGNORECASE
)
"""Names that state how an image was made: `NAME_aug1`, `NAME_rot90`, `NAME_original`, `flip_NAME`."""
_SIDE = r"(?i)^(?P<patient>.*\d.*)[ _.-](?:(?P<left>left|l|os)|(?P<right>right|r|od))(?:\.[a-z0-9]+)?$"
"""Names that end in the side of a patient's eye: `10_left`, `P3-OD.jpg`."""
_SIDED = r"(?i)[ _.-](?:left|l|os|right|r|od)(?:\.[a-z0-9]+)?$"
MIN_SIDES = 0.5
"""Names state sides if at least this share ends in one, and this share of the patients has both."""
MAX_REPEATED = 0.05
"""If more names repeat in other folders, numbers restart in each folder; else a repeated name is the same patient."""
MIN_DIGITS = 6
"""A shorter number alone does not identify an image in all folders."""


class Groups:
    """Disjoint sets of rows (union–find, R. Tarjan 1975)."""

    def __init__(self, size: int) -> None:
        self._parent = array("q", range(size))

    def find(self, row: int) -> int:
        """Return the first row of a row's set."""
        while self._parent[row] != row:
            self._parent[row] = self._parent[self._parent[row]]
            row = self._parent[row]
        return row

    def join(self, rows: Iterable[int]) -> None:
        """Join the sets of some rows."""
        first: int | None = None
        for row in rows:
            if first is None:
                first = self.find(row)
                continue
            a, b = sorted((self.find(first), self.find(row)))
            self._parent[b] = a
            first = a

    def join_equal(self, codes: np.ndarray) -> None:
        """Join the rows of each code, (N,) integers, that is not negative."""
        first = first_rows(codes)
        for row in np.flatnonzero((codes >= 0) & (first != np.arange(len(codes)))).tolist():
            self.join((int(first[row]), row))

    def labels(self) -> np.ndarray:
        """Return (N,) int64, the first row of each row's set."""
        return np.fromiter(map(self.find, range(len(self._parent))), np.int64)


def _number_ids(ids: pd.Series) -> np.ndarray:
    """Return a number for each id, and −1 for an empty one: (N,) int64.

    It is the same for upper and lower case, for both forms of accents, for one blank and several, and for `3`, `3.0`
    and `003`.
    """
    codes, names = pd.factorize(ids)
    return pd.factorize(np.array([_fold(name) or None for name in names], object))[0][codes]


def _fold(name: str) -> str:
    plain = " ".join(unicodedata.normalize("NFC", name).lower().split())
    return _ZEROS.sub("", _DECIMALS.sub(r"\1", plain))


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def _without_signs(value: str) -> str:
    """Return an id without brackets, quotes, and the decimals of a whole number."""
    return _DECIMALS.sub(r"\1", value.strip(" ()[]{}<>'\"`*"))


def is_placeholder(value: str) -> bool:
    """Return whether an id means a missing one, or may do so as zeros or nines."""
    plain = _without_signs(value)
    if _ZEROS_OR_NINES.fullmatch(plain) or _CODE.fullmatch(plain) or _SPREADSHEET_ERROR.fullmatch(plain):
        return True
    if not any(map(str.isalnum, plain)):
        return True
    is_formula = plain.startswith(FORMULA_STARTS)  # which is refused
    return not is_formula and _MISSING.fullmatch(re.sub(r"[\W_]+", "", plain.lower())) is not None


def _is_number(value: str, counts: Counter[str]) -> bool:
    """Return whether zeros or nines are an id: one of a sequence, or without more images than other numbers."""
    plain = _without_signs(value)
    if not _ZEROS_OR_NINES.fullmatch(plain):
        return False
    numbers = {number: count for other, count in counts.items() if (number := _without_signs(other)).isdecimal()}
    neighbours = {f"{plain[:-1]}8", f"1{'0' * len(plain)}"}
    if "9" in plain and (counts[value] < 2 or neighbours & numbers.keys()):
        return True
    others = [count for number, count in numbers.items() if not _ZEROS_OR_NINES.fullmatch(number)]
    return counts[value] <= max(others, default=0)


def clear_placeholders(ids: pd.Series, name: str, notes: list[str]) -> pd.Series:
    """Return ids without values that stand for a missing one, which become empty.

    Args:
        ids: (N,) strings.
        name: of the field, for the notes.
        notes: extended in place.
    """
    found = [value for value in ids[ids.str.fullmatch(_MAY_BE_MISSING)].unique() if value and is_placeholder(value)]
    if not found:
        return ids
    counts = Counter(value for value in ids if value)
    for value in sorted(value for value in found if not _is_number(value, counts)):
        ids = ids.where(ids != value, "")
        notes.append(
            f"{name} is {printable(value)!r} in {_rows(counts[value])}, which is no id: it is treated as missing"
        )
    return ids


def _implausible(ids: pd.Series, dx: pd.Series) -> Iterator[tuple[str, int]]:
    """Yield the ids that have far more images than nearly all others, and their number of images.

    Args:
        ids: (N,) strings; empty if missing.
        dx: (N,) class of each image.
    """
    known = ids != ""
    counts = ids[known].value_counts()
    of_both = ids[known].groupby([ids[known], dx[known]], observed=True).size()
    share = (of_both / dx.value_counts().reindex(of_both.index.get_level_values(1)).to_numpy()).groupby(level=0).max()
    # A class has at most nine ids with a tenth of its images, so the loop is short.
    large = counts[(counts >= MIN_IMPLAUSIBLE_IMAGES) & (share.reindex(counts.index) > MAX_SHARE_OF_CLASS)]
    for value, count in large.items():
        others = counts[counts.index != value]
        if count > MAX_TIMES_OTHERS * (np.quantile(others, 0.95) if len(others) else 1):
            yield str(value), int(count)


def clear_implausible(lesions: pd.Series, dx: pd.Series, notes: list[str]) -> pd.Series:
    """Return lesion ids without those that have far more images than others, which become empty.

    Args:
        lesions: (N,) strings; empty if missing.
        dx: (N,) class of each image.
        notes: extended in place.
    """
    for lesion, count in list(_implausible(lesions, dx)):
        lesions = lesions.where(lesions != lesion, "")
        notes.append(
            f"lesion_id is {printable(lesion[:80])!r} in {_rows(count)}, more than one lesion can have: "
            "it is treated as missing"
        )
    return lesions


def _shorter_names(name: str) -> Iterator[str]:
    """Yield the names that a name extends: at its end, the shortest first, then at its beginning."""
    folder, slash, stem = name.rpartition("/")
    cuts = [match.span() for match in _SEPARATOR.finditer(stem)]
    beginnings = (stem[:start].rstrip(" _.-") for start, _ in cuts)
    ends = (stem[end:].lstrip(" _.-") for _, end in reversed(cuts))
    for shorter in (*beginnings, *(end for end in ends if not end.isdigit())):
        if shorter:
            yield folder + slash + shorter


def changed_from(stem: str) -> str | None:
    """Return the name of the image that a changed copy was made of; None if the rest of the name does not identify it.

    Example:
        >>> changed_from("ISIC_1_flip_rot90"), changed_from("image_flip"), changed_from("ISIC_1_2")
        ('ISIC_1', None, None)
    """
    name = stem
    while match := _CHANGED.fullmatch(name) or _CHANGED_BEFORE.fullmatch(name):
        name = match[1]
    digits = sum(map(str.isdigit, name))
    identifies = digits and len(name) > 1 and (digits < len(name) or digits >= MIN_DIGITS)
    return name if identifies and name != stem else None


def _folders(name: str) -> Iterator[str]:
    """Yield the folder of a name and those around it, the deepest first; the last one is empty."""
    while name:
        name = name.rpartition("/")[0]
        yield name


def _relate_changed(texts: Texts, labels: np.ndarray, base_of: dict[int, int]) -> None:
    """Add copies whose names state a change, in other folders than their image or without it.

    The image is that of the same class with the name, of several the one in the nearest folder. Without one, the
    copies are related to the first of them; those of other folders only if none of their names is repeated there,
    since cameras repeat names.

    Args:
        texts: (N,) names.
        labels: (N,) classes, integers.
        base_of: row → row that it is a copy of; extended in place.
    """
    stems = ((row, changed_from(base_name(name))) for row, name in enumerate(texts) if row not in base_of)
    changed = {row: (stem, int(labels[row])) for row, stem in stems if stem is not None}
    wanted = set(changed.values())
    originals: dict[tuple[object, ...], int | None] = {}  # None for several
    for row, name in enumerate(texts) if changed else ():
        if (key := (base_name(name), int(labels[row]))) in wanted:
            for folder in _folders(name):
                originals[*key, folder] = None if (*key, folder) in originals else row
    spelled = Counter((key, base_name(texts[row])) for row, key in changed.items())
    repeated = {key for (key, _), count in spelled.items() if count > 1}
    first: dict[tuple[object, ...], int] = {}
    for row, key in changed.items():
        folders = list(_folders(texts[row]))
        near = next((place for folder in folders if (place := (*key, folder)) in originals), None)
        if near is None:
            base = first.setdefault((*key, folders[0] if key in repeated else ""), row)
        else:
            base = row if (original := originals[near]) is None else original
        base = _follow(base_of, base)
        if base != row:
            base_of[row] = base


def _follow(base_of: dict[int, int], row: int) -> int:
    """Return the row at the end of a chain: what a name extends may extend another name itself."""
    while row in base_of:
        row = base_of[row]
    return row


def related_rows(names: pd.Series, dx: pd.Series) -> np.ndarray:
    """Return for each image the row whose name it extends, such as `a` for `a_aug1`, `flip_a` and `a (2)`, or its own.

    Only the name of another image of the same class and folder can be extended. Versions that a program made of one
    image, see `_VERSION`, and names that state a change, see `_relate_changed`, are related in all folders.

    Args:
        names: (N,) image ids, each once.
        dx: (N,) class of each image.

    Returns:
        (N,) int64.
    """
    texts, labels = Texts(iterate(names)), pd.factorize(dx)[0]
    rows_of = Positions(texts, texts.__getitem__)
    base_of: dict[int, int] = {}
    versions: dict[tuple[str, int], int] = {}
    for row, name in enumerate(texts):
        others = (other for shorter in _shorter_names(name) for other in rows_of.find(shorter))
        base = next((other for other in others if labels[other] == labels[row]), row)
        if base == row and (version := _VERSION.fullmatch(name.rpartition("/")[2])):
            base = versions.setdefault((version[1], int(labels[row])), row)
        if base != row:
            base_of[row] = base
    numbered = [
        row
        for row, base in base_of.items()
        if texts[row].startswith(texts[base]) and _NUMBER.fullmatch(texts[row][len(texts[base]) :])
    ]
    counts = Counter(base_of[row] for row in numbered)
    for row in numbered:
        if counts[base_of[row]] > MAX_NUMBERED:
            del base_of[row]
    _relate_changed(texts, labels, base_of)
    rows = np.arange(len(texts))
    for row in base_of:
        rows[row] = _follow(base_of, row)
    return rows


def patients_of_sides(names: pd.Series) -> pd.Series | None:
    """Return the patient of each image whose name ends in a side, such as `10` for `10_left` and `10_right`.

    Both eyes of a patient resemble each other, so that one must not be tested by a model which has seen the other.

    Args:
        names: (N,) image ids, each once, without copies.

    Returns:
        Strings, with the index of the images that have a patient; None if the names do not state sides.
    """
    if names.empty or names.str.contains(_SIDED).mean() < MIN_SIDES:
        return None
    ends = names.str.replace(r"^.*/", "", regex=True)
    parts = (names if ends.duplicated().mean() > MAX_REPEATED else ends).str.extract(_SIDE).dropna(subset="patient")
    has_side = parts.groupby("patient")[["left", "right"]].count() > 0
    if len(parts) < MIN_SIDES * len(names) or has_side.all(axis=1).mean() < MIN_SIDES:
        return None
    return parts["patient"]


def relate(table: pd.DataFrame, notes: list[str]) -> tuple[pd.DataFrame, Unit]:
    """Return the table with lesion_id, patient_id and group_id as `Dataset` describes them, and the unit.

    Args:
        table: image_id, dx, and lesion_id and patient_id if the data has them; strings.
        notes: sentences for log and pages; extended in place.
    """
    dx, names = table["dx"], table["image_id"]
    empty = pd.Series("", index=table.index, dtype=STRING)
    patients = clear_placeholders(table.get("patient_id", empty), "patient_id", notes)
    for patient, count in _implausible(patients, dx):
        notes.append(
            f"patient_id is {printable(patient[:80])!r} in {_rows(count)}, far more than any other: they stay in one "
            "split; leave it empty if it means unknown patients"
        )
    lesions = clear_placeholders(table.get("lesion_id", empty), "lesion_id", notes)
    lesions = _qualify_by_patient(lesions, patients, notes)
    lesions = clear_implausible(lesions, dx, notes)
    groups = Groups(len(table))  # an id that is spelled in two ways stays in one split
    groups.join_equal(_number_ids(lesions))
    groups.join_equal(_number_ids(patients))
    bases = related_rows(names, dx)
    copies = bases != np.arange(len(table))
    if copies.any():
        groups.join_equal(bases)
    sided = None if (patients != "").any() else patients_of_sides(names[~copies])
    if sided is not None:
        groups.join_equal(pd.factorize(sided.reindex(names.index))[0])
        notes.append(
            f"{len(sided):,} images are named by patient and side, such as {printable(names[sided.index[0]][:80])}: "
            "both sides of a patient stay in one split"
        )
    lesions = _separate_classes(lesions, dx, notes)
    unit: Unit = "lesion" if (lesions != "").any() else "patient" if (patients != "").any() else "image"
    _note_unit(unit, lesions, patients, notes)
    ids = lesions if unit == "lesion" else _separate_classes(patients, dx, []) if unit == "patient" else empty
    # Copies of one image are one unit, that of the image whose name they extend.
    own = ids.where(ids != "", names)
    taken = (ids == "") & names.isin(ids[ids != ""].unique())
    own = own.where(~taken, "image " + names) if taken.any() else own
    if copies.any():
        own = own.take(bases).set_axis(table.index)
        groups.join_equal(pd.factorize(own)[0])
        notes.append(
            f"{copies.sum():,} images extend the name of another one, such as {printable(names[copies].iloc[0][:80])}: "
            "they are treated as copies of it and stay with it"
        )
    labels = groups.labels()
    codes, sorted_ids = pd.factorize(own, sort=True)
    smallest = np.full(len(own), len(sorted_ids))
    np.minimum.at(smallest, labels, codes)
    first = pd.Series(sorted_ids.take(smallest[labels]), index=table.index, dtype=STRING)
    return table.assign(lesion_id=own, patient_id=patients, group_id=first), unit


def _qualify_by_patient(lesions: pd.Series, patients: pd.Series, notes: list[str]) -> pd.Series:
    """Return lesion ids that have one patient each: the patient is put before those that have several."""
    known = (lesions != "") & (patients != "")
    several = patients[known].groupby(lesions[known]).nunique()
    restarted = known & lesions.isin(several.index[several > 1])
    if not restarted.any():
        return lesions
    shown = [printable(str(value)[:80]) for value in dict.fromkeys(lesions[restarted])]
    qualified = patients[restarted] + " " + lesions[restarted]
    notes.append(
        f"{len(shown):,} lesion ids occur with several patients ({join_some(shown)}), {_rows(int(restarted.sum()))}: "
        f"each is another lesion of each patient, {qualified.nunique():,} lesions in all"
    )
    return lesions.where(~restarted, patients + " " + lesions)


def _separate_classes(ids: pd.Series, dx: pd.Series, notes: list[str]) -> pd.Series:
    """Return ids that have one class each: the class is added to those that have several."""
    several = (ids != "") & have_several(ids, dx)
    if several.any():
        shown = [printable(str(value)[:80]) for value in dict.fromkeys(ids[several])]
        notes.append(
            f"{len(shown):,} lesion ids have several classes ({join_some(shown)}), {_rows(int(several.sum()))}: "
            "their images stay in one split, and each of their classes counts as one lesion"
        )
    return ids.where(~several, ids + " " + dx)


def _note_unit(unit: Unit, lesions: pd.Series, patients: pd.Series, notes: list[str]) -> None:
    missing = int((lesions == "").sum())
    if unit == "lesion" and missing:
        notes.append(
            f"{missing:,} images have no lesion id: each counts as one lesion; another photograph of it in "
            "another split would not be detected"
        )
    if unit == "patient":
        notes.append(
            "there are no lesion ids: the unit is the patient, so the images of a patient and class count once in "
            "intervals and tests"
        )
    if unit != "lesion" and (patients == "").any():
        count = int((patients == "").sum())
        notes.append(
            f"{count:,} images have neither a lesion id nor a patient id: each counts on its own; other photographs of "
            "the same object may be in another split, so that results can be too good and intervals too narrow"
        )
