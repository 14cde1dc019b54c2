"""Which images belong together: lesions, patients, copies by name; and ids that cannot be one."""

import pandas as pd
import pytest

from components.prepare_data.layouts.relations import patients_of_sides, relate, related_rows


def table(lines, columns=("image_id", "dx", "lesion_id")):
    return pd.DataFrame(lines, columns=list(columns), dtype=object)


def related(lines, columns=("image_id", "dx", "lesion_id")):
    """Return the related table by image id, the unit, and the notes."""
    notes: list[str] = []
    result, unit = relate(table(lines, columns), notes)
    return result.set_index("image_id"), unit, notes


@pytest.mark.parametrize("value", ["unknown", "NA", "nan", "None", "-", "", "N/A", "-1", "?", "<NA>", "Anonymous"])
def test_relate_placeholder_is_missing(value):
    lines = [(f"I{n}", "nv", value if n < 9 else f"L{n}") for n in range(12)]
    result, unit, notes = related(lines)
    assert unit == "lesion"
    assert result["lesion_id"].nunique() == 12
    assert list(result["lesion_id"].iloc[:9]) == [f"I{n}" for n in range(9)]
    assert any("9 rows" in note and repr(value) in note for note in notes) == bool(value)
    assert any(note.startswith("9 images have no lesion id") for note in notes)


PLACEHOLDERS = (
    "0.0", "999", "9999", "9999.0", "-9", "-99", "-1.0", "00000", "???", "—", "--", "[]", "blank",
    "empty", "no_lesion_id", "missing_id", "(none)", "n.d.", "N.A", "na.", "N_A",
    "x", "XXX", "#REF!",
    "#N/A", "#DIV/0!", "Unknown_id", "not-recorded", "Lesion_unknown", "noid", "<missing>", '"NA"',
)  # fmt: skip


@pytest.mark.parametrize("field", ["lesion_id", "patient_id"])
@pytest.mark.parametrize("value", [*PLACEHOLDERS, "unknown lesion", "not recorded", "No patient ID"])
def test_relate_placeholder_with_signs_decimals_or_more_words_is_missing(value, field):
    lines = [(f"I{n}", "nv", value if n < 9 else f"L{n}") for n in range(12)]
    result, unit, notes = related(lines, ("image_id", "dx", field))
    assert unit == field.removesuffix("_id")
    assert result["group_id"].nunique() == 12
    assert f"{field} is {value!r} in 9 rows, which is no id: it is treated as missing" in notes


@pytest.mark.parametrize(
    "value",
    [
        "L0",
        "P0",
        "0012",
        "x1",
        "9",
        "19999",
        "#12",
        "NA12",
        "unknown 1",
        "Nona",
        "id",
        "0-0-1",
        "[1]",
        "Anna",
        "ISIC_0",
    ],
)
def test_relate_id_that_resembles_a_placeholder_is_kept(value):
    lines = [(f"I{n}", "nv", value if n < 3 else f"L{n}x") for n in range(12)]
    result, _, notes = related(lines)
    assert set(result["lesion_id"].iloc[:3]) == {value}
    assert notes == []


def test_relate_nines_among_numbers_are_an_id_unless_they_have_most_images():
    numbered = [(f"I{n}", "nv", str(90 + n // 2)) for n in range(40)]
    assert related(numbered)[0]["lesion_id"].nunique() == 20
    once = [(f"I{n}", "nv", "999" if n == 5 else f"L{n}") for n in range(8)]
    assert related(once)[0]["lesion_id"]["I5"] == "999"
    most = [(f"I{n}", "nv", "999" if n < 5 else str(n)) for n in range(8)]
    assert related(most)[0]["lesion_id"].nunique() == 8


def test_relate_zero_among_numbers_is_an_id_unless_it_has_most_images():
    numbered = [(f"I{n}", "nv", str(n // 2)) for n in range(8)]
    assert related(numbered)[0]["lesion_id"].nunique() == 4
    most = [(f"I{n}", "nv", "0" if n < 5 else str(n)) for n in range(8)]
    assert related(most)[0]["lesion_id"].nunique() == 8
    assert related([(f"I{n}", "nv", "0") for n in range(4)])[1] == "image"


def test_relate_lesion_with_implausibly_many_images_is_missing():
    lines = [(f"I{n}", "nv", "multiple" if n < 18 else f"L{n // 2}") for n in range(60)]
    result, _, notes = related(lines)
    assert result["lesion_id"].nunique() == 18 + 21
    assert "'multiple' in 18 rows" in notes[0]


def test_relate_patient_with_implausibly_many_images_is_kept_and_noted():
    columns = ("image_id", "dx", "patient_id")
    result, _, notes = related([(f"I{n}", "nv", "clinic" if n < 18 else f"P{n // 2}") for n in range(60)], columns)
    assert result["group_id"].nunique() == 1 + 21
    assert notes[0] == (
        "patient_id is 'clinic' in 18 rows, far more than any other: they stay in one split; leave it empty if it "
        "means unknown patients"
    )
    result, _, notes = related([(f"I{n}", "nv", "anonymous" if n < 18 else f"P{n // 2}") for n in range(60)], columns)
    assert result["group_id"].nunique() == 18 + 21
    assert notes[0] == "patient_id is 'anonymous' in 18 rows, which is no id: it is treated as missing"


def test_relate_lesions_that_all_have_many_images_are_kept():
    lines = [(f"I{n}", "nv", f"video {n // 30}") for n in range(150)]
    result, _, notes = related(lines)
    assert result["lesion_id"].nunique() == 5
    assert notes == []


def test_relate_lesion_with_two_classes_stays_together_and_counts_twice():
    result, _, notes = related([("A", "nv", "L"), ("B", "mel", "L"), ("C", "nv", "M")])
    assert list(result["lesion_id"]) == ["L nv", "L mel", "M"]
    assert result.loc["A", "group_id"] == result.loc["B", "group_id"] != result.loc["C", "group_id"]
    assert notes[0].startswith("1 lesion ids have several classes (L), 2 rows")


def test_relate_patients_join_lesions_and_are_the_unit_without_them():
    columns = ("image_id", "dx", "lesion_id", "patient_id")
    lines = [("A", "nv", "L1", "P"), ("B", "mel", "L2", "P"), ("C", "nv", "L3", "Q")]
    result, unit, _ = related(lines, columns)
    assert unit == "lesion"
    assert list(result["lesion_id"]) == ["L1", "L2", "L3"]
    assert result.loc["A", "group_id"] == result.loc["B", "group_id"] != result.loc["C", "group_id"]
    result, unit, notes = related([(a, dx, "", patient) for a, dx, _, patient in lines], columns)
    assert unit == "patient"
    assert list(result["lesion_id"]) == ["P nv", "P mel", "Q"]
    assert result.loc["A", "group_id"] == result.loc["B", "group_id"]
    assert "the unit is the patient" in notes[0]


@pytest.mark.parametrize(
    ("one", "other"),
    [("HAM_1", "ham_1"), ("L\u00e9", "Le\u0301"), ("3", "3.0"), ("3", "3,0"), ("3", "003"), ("P 3", "P  3")],
)
def test_relate_ids_that_are_spelled_in_two_ways_stay_in_one_split(one, other):
    columns = ("image_id", "dx", "lesion_id", "patient_id")
    lines = [("A", "nv", one, ""), ("B", "nv", other, ""), ("C", "nv", "L2", "p7"), ("D", "nv", "L3", "P7")]
    groups = related(lines, columns)[0]["group_id"]
    assert groups["A"] == groups["B"] != groups["C"] == groups["D"]


@pytest.mark.parametrize(
    "ends",
    [("_left", "_right"), ("_L", "_R"), ("-od", "-os"), (" Right", " LEFT"), ("_left.jpeg", "_right.jpeg")],
)
@pytest.mark.parametrize("folders", [("", ""), ("no/", "no/"), ("no/", "severe/")])
def test_relate_names_of_both_sides_stay_in_one_split(ends, folders):
    names = [folder + number + end for number in ("10", "013") for folder, end in zip(folders, ends, strict=True)]
    result, unit, notes = related([(name, f"c{n % 2}", "") for n, name in enumerate(names)])
    assert unit == "image"
    groups = [result.loc[name, "group_id"] for name in names]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    assert list(result["lesion_id"]) == names
    note = f"4 images are named by patient and side, such as {names[0]}: both sides of a patient stay in one split"
    assert notes[0] == note


def test_relate_lesions_of_both_sides_stay_whole_and_join():
    lines = [("1_l", "nv", "L1"), ("1_r", "nv", "L2"), ("2_l", "nv", "L1"), ("2_r", "nv", ""), ("3_l", "nv", "L9")]
    result, unit, _ = related(lines)
    assert unit == "lesion"
    assert list(result["lesion_id"])[:3] == ["L1", "L2", "L1"]
    assert result["group_id"].nunique() == 2  # patients 1 and 2, who have lesion L1 in common, and patient 3


def test_relate_copies_of_both_sides_stay_with_them():
    names = [
        f"{n}_{side}{copy}" for n in "12" for side in ("left", "right") for copy in ("", "_aug1", "_aug2", "_flip")
    ]
    result, _, _ = related([(name, "a", "") for name in names])
    assert result["group_id"].nunique() == 2
    assert result["lesion_id"].nunique() == 4


def test_patients_of_sides_whose_numbers_restart_in_each_folder_are_those_of_the_folder():
    names = pd.Series([f"{dx}/{n}_{side}" for dx in ("no", "severe") for n in "12" for side in ("left", "right")])
    found = patients_of_sides(names)
    assert found is not None
    assert list(found) == ["no/1", "no/1", "no/2", "no/2", "severe/1", "severe/1", "severe/2", "severe/2"]


def test_patients_of_sides_with_a_few_repeated_names_are_those_of_all_folders():
    names = pd.Series(["severe/1_left", *(f"no/{n}_{side}" for n in range(1, 21) for side in ("left", "right"))])
    found = patients_of_sides(names)
    assert found is not None
    assert list(found[:3]) == ["1", "1", "1"]
    assert found.nunique() == 20


def test_patients_of_sides_leave_other_images_without_a_patient():
    found = patients_of_sides(pd.Series(["1_left", "overview", "1_right", "2_left", "2_right", "3_right"]))
    assert found is not None
    assert found.to_dict() == {0: "1", 2: "1", 3: "2", 4: "2", 5: "3"}


@pytest.mark.parametrize(
    "names",
    [
        ["1_left", "2_left", "3_right", "4_right"],  # one image of each patient needs none
        ["1_left", "1_right", "a", "b", "c"],
        ["left", "right"],
        ["knee_l", "knee_r"],
        ["11", "1r", "2l", "2r"],
        ["cell_1", "cell_2"],
        [],
    ],
)
def test_patients_of_sides_of_names_that_state_none_are_none(names):
    assert patients_of_sides(pd.Series(names, dtype=object)) is None


def test_relate_sides_do_not_replace_patient_ids():
    columns = ("image_id", "dx", "lesion_id", "patient_id")
    result, _, notes = related([("1_left", "a", "", "P"), ("1_right", "a", "", "Q")], columns)
    assert result["group_id"].nunique() == 2
    assert not [note for note in notes if "side" in note]


def test_relate_lesion_numbers_that_restart_for_each_patient_are_lesions_of_each():
    columns = ("image_id", "dx", "lesion_id", "patient_id")
    lines = [(f"I{n}", "nv", str(1 + n % 2), f"P{n // 4}") for n in range(12)]
    result, unit, notes = related([*lines, ("J", "nv", "2", ""), ("K", "nv", "3", "P0")], columns)
    assert unit == "lesion"
    assert list(result["lesion_id"]) == [
        *(f"P{n // 4} {1 + n % 2}" for n in range(12)),
        "2",  # of an unknown patient
        "3",  # of one patient only
    ]
    assert result["group_id"].nunique() == 4
    assert notes == [
        "2 lesion ids occur with several patients (1, 2), 12 rows: each is another lesion of each patient, "
        "6 lesions in all"
    ]


@pytest.mark.parametrize("end", ["_aug1", "_flip", " (2)", "-copy", " - Copy", "_rot90", "_0_1", ".2"])
def test_relate_names_that_extend_another_are_copies(end):
    result, _, notes = related([("A", "nv", ""), (f"A{end}", "nv", ""), ("B", "nv", ""), (f"B{end}", "mel", "")])
    assert result.loc["A", "group_id"] == result.loc[f"A{end}", "group_id"]
    assert result.loc["A", "lesion_id"] == result.loc[f"A{end}", "lesion_id"] == "A"
    assert result.loc["B", "group_id"] != result.loc[f"B{end}", "group_id"]  # a copy has the class of its original
    assert any(note.startswith("1 images extend the name") for note in notes)


@pytest.mark.parametrize("start", ["aug1_", "flip-", "Copy of ", "aug_0_"])
def test_relate_names_that_end_as_another_are_copies(start):
    result, _, _ = related([("A", "nv", ""), (f"{start}A", "nv", ""), ("B", "nv", ""), (f"{start}B", "mel", "")])
    assert result.loc["A", "lesion_id"] == result.loc[f"{start}A", "lesion_id"] == "A"
    assert result["group_id"].nunique() == 3


def related_names(names, dx):
    """Return the name that each name extends."""
    return list(names.iloc[related_rows(names, dx)])


def test_related_names_that_end_in_a_number_are_no_copies_of_it():
    names = pd.Series(["1", "2", "nv_1", "nv (2)"])
    assert related_names(names, pd.Series("nv", index=names.index)) == list(names)


def test_related_names_follow_copies_of_copies():
    names = pd.Series(["flip_A_aug1", "A_aug1", "A", "aug2_flip_A_aug1"])
    assert related_names(names, pd.Series("nv", index=names.index)) == ["A"] * 4


HASH, OTHER_HASH = "0a1b2c3d4e5f60718293a4b5c6d7e8f9", "f" * 32
UUID = "123e4567-e89b-12d3-a456-426614174000"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (f"train/nv/I_1_jpg.rf.{HASH}", f"train/nv/I_1_jpg.rf.{OTHER_HASH}"),
        (f"train/nv/I_1_jpg.rf.{HASH}", f"test/nv/I_1_jpg.rf.{OTHER_HASH}"),
        ("nv/I_1", f"nv/I_1_png.rf.{HASH}"),
        (f"nv_original_I_1.jpg_{UUID}", f"nv_original_I_1.jpg_{UUID[::-1]}"),
    ],
    ids=["Roboflow", "in another split", "beside the original", "Augmentor"],
)
def test_related_names_of_versions_that_a_program_made_are_copies(first, second):
    names = pd.Series([first, second, second.replace("I_1", "I_2")])
    assert related_names(names, pd.Series("nv", index=names.index)) == [first, first, names[2]]
    assert related_names(names, pd.Series(["nv", "mel", "nv"])) == list(names)


def test_relate_copies_with_lesion_ids_of_their_own_are_one_lesion():
    lines = [(name, "mel", name) for name in ("ISIC_1", "ISIC_1_aug1", "ISIC_1_aug2", "ISIC_2")]
    result, _, _ = related(lines)
    assert list(result["lesion_id"]) == ["ISIC_1", "ISIC_1", "ISIC_1", "ISIC_2"]
    assert result["group_id"].nunique() == 2


def test_related_names_of_a_numbered_sequence_are_no_copies():
    names = pd.Series(["nv", *(f"nv_{n}" for n in range(40))])
    assert related_names(names, pd.Series("nv", index=names.index)) == list(names)
    few = names[:5]
    assert set(related_names(few, pd.Series("nv", index=few.index))) == {"nv"}


def test_related_names_compare_within_a_folder():
    names = pd.Series(["a/1", "b/1_2", "a/1_2"])
    assert related_names(names, pd.Series("x", index=names.index)) == ["a/1", "b/1_2", "a/1"]


@pytest.mark.parametrize(
    "names",
    [
        ("nv/nv0", "nv/augmented/nv0_aug1"),
        ("orig/a0", "aug/a0_flip"),
        ("test/nv/nv0", "train/nv/nv0_aug1"),
        ("nv0_original", "nv0_aug1", "nv0_rot90"),
        ("train/nv0 - Copy (2)", "test/nv0_h-flip_rot_90deg", "nv0_brightness-1"),
        ("a/IMG_1", "b/flip_IMG_1", "c/aug_0_IMG_1"),
        ("train/0024306", "test/0024306_crop1"),
    ],
)
def test_related_names_that_state_a_change_are_copies_in_all_folders(names):
    names = pd.Series([*names, "other/nv1_flip", "other/IMG_2"])
    same = pd.Series("nv", index=names.index)
    assert related_names(names, same) == [*[names[0]] * (len(names) - 2), *names[-2:]]
    other = same.where(same.index != 0, "mel")  # a copy has the class of its original
    assert related_names(names, other)[0] == names[0] not in related_names(names, other)[1:]


@pytest.mark.parametrize(
    "names",
    [
        ("a/image", "b/image_flip", "c/image_rot90"),
        ("a/1", "b/1_flip", "c/1_aug2"),  # numbers restart in each folder
        ("a/x", "b/x_flip"),
        ("aug_0_1234", "aug_7_1234"),
        ("crop_01", "crop_02", "flip_01"),
        ("a/nv0", "b/nv0_1"),
        ("scan1_august", "scan1_september"),
        ("p1/IMG_1_flip", "p2/IMG_1_flip"),  # a camera's names in folders of patients
        ("p1/IMG_1", "p2/IMG_1", "p3/IMG_1_flip"),
    ],
)
def test_related_names_that_identify_no_image_of_another_folder_are_not(names):
    names = pd.Series(names)
    assert related_names(names, pd.Series("nv", index=names.index)) == list(names)


def test_related_names_that_state_a_change_belong_to_the_nearest_image():
    names = pd.Series(["p1/IMG_1", "p2/IMG_1", "p2/aug/IMG_1_flip", "p1/aug/IMG_1_flip_rot90"])
    assert related_names(names, pd.Series("nv", index=names.index)) == ["p1/IMG_1", "p2/IMG_1", "p2/IMG_1", "p1/IMG_1"]
    names = pd.Series(["p1/IMG_1_flip", "p2/IMG_1_flip", "p2/IMG_1_rot90"])
    assert related_names(names, pd.Series("nv", index=names.index)) == [
        "p1/IMG_1_flip",
        "p2/IMG_1_flip",
        "p2/IMG_1_flip",
    ]
