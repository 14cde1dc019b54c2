"""Model card and data sheet: the run's own figures, and what is not recorded."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.evaluate.report.cards import population
from components.evaluate.report.formatting import show
from components.shared.image_set import REAL, Header, encode_png, write_image_set
from components.shared.records import OTHER_GROUP, UNKNOWN_GROUP
from tests.helpers.example_results import ARMS, TEST, example, example_subgroups, nulled, renamed
from tests.helpers.rendering import data_sheet, model_card, render_markdown, render_text, show_interval


def _tables(text: str) -> list[list[list[str]]]:
    """Return every table as rows of cells; no table has more than five columns."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        rows = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()]
        assert len({len(row) for row in rows}) == 1
        assert len(rows[0]) <= 5
        assert set("".join(rows[1])) <= set(":-")
        found.append([rows[0], *rows[2:]])
    return found


def test_model_card_has_the_figures_of_the_run():
    results = example(2, external=True)
    text = model_card(results)
    assert all(f"\n- **{item}**: " in text for item in ("Predictors", "Output", "Architecture"))
    arms, performance, outside, _ = _tables(text)
    assert [row[:4] for row in arms[1:]] == [
        ["baseline", "real images as they are", "7,010", "2"],
        ["oversampled", "real images; rare classes with repeats", "9,214", "2"],
        ["augmented 100 %", "real images; rare classes with synthetic images", "9,214", "2"],
    ]
    for table, outcome in ((performance, results), (outside, results["external"])):
        rows = {row[0]: row[1:] for row in table}
        assert len(rows) == 1 + 11 + 7
        primary = [outcome["arms"][arm] for arm in ARMS]
        assert rows["Mean recall, rare classes (primary metric)"] == [
            *(f"{show(arm['rare_recall'])} ({show_interval(arm['intervals']['rare_recall'])})" for arm in primary),
            f"{show(outcome['effect']['value'], '+')} ({show_interval(outcome['effect'], '+')})",
        ]
        (gain,) = (it for it in outcome["effect"]["remedies"] if it["arm"] == "augmented@1")
        assert (
            f"includes rebalancing: {show(gain['value'], '+')} ({show_interval(gain, '+')}, corrected for 2 arms)."
            in text
        )
        nv = outcome["arms"]["augmented@1"]
        cells = next(cells for name, cells in rows.items() if name.startswith("Recall, nv"))
        assert cells[2] == f"{show(nv['recall']['nv'])} ({show_interval(nv['recall_interval']['nv'])})"
    assert "On 1,502 real test images of 1,120 lesions" in text
    assert "16,877,511 parameters" in text
    assert "classifiers 1, 2; split, GANs and sampling 7" in text
    assert results["effect"]["by_class"]["df"]["lesions_needed"] is None
    assert "df (11 test lesions, more seeds needed)" in text
    more_seeds = example(3)
    needed = more_seeds["effect"]["by_class"]["bcc"]["lesions_needed"]
    assert needed is not None
    assert f"{needed} needed" in model_card(more_seeds).replace(",", "")
    assert "p = " not in text  # several seeds
    assert "McNemar's exact test at lesion level: p = " in model_card(example(1))
    assert "The GAN of vasc failed" in text


@pytest.mark.parametrize(
    "asked",
    [
        "Intended use", "Not for", "Predictors", "Output", "Eligibility, setting, dates", "Outcome", "Sample size",
        "Missing data", "Split", "Skin type, ethnicity**: not recorded", "Age, sex, site", "Limitations", "Versions",
        "Availability of the data, funding, conflicts of interest", "not a medical device", "Class imbalance",
    ],
)  # fmt: skip
def test_model_card_answers_the_items_of_tripod_ai(asked: str):
    assert asked in model_card(example(1))


def test_model_card_warns_of_synthetic_images_unlike_real_ones():
    limitations = model_card(example(1)).split("## Limitations")[1].split("##")[0]
    assert "- df: synthetic images are easily distinguished from real ones (AUC 0.961)." in limitations
    assert "- akiec: classifiers trained on real images assign a smaller share of the synthetic images" in limitations
    assert "akiec: synthetic images are easily" not in limitations
    assert "df: classifiers" not in limitations


def test_model_card_names_the_weights_that_the_network_started_from():
    results = example(2)
    assert "trained from random weights." in model_card(results)
    results["run"]["settings"]["weights_sha256"] = "a" * 64
    text = model_card(results)
    assert f"SHA-256 `{'a' * 64}`. Whether test images were used to train them is unknown." in text
    assert "random weights" not in text


def test_model_card_missing_external_data_are_stated():
    assert "**On external data**: not measured in this run." in model_card(example(1))
    assert "not measured in this run" not in model_card(example(1, external=True))


def test_data_sheet_counts_images_and_lesions():
    counts, people, synthetic, likeness, gans = _tables(data_sheet(example(1)))
    assert [row[0] for row in counts[1:]] == [
        "akiec (rare)", "bcc", "bkl", "df (rare)", "mel", "nv", "vasc (rare)", "**All**",
    ]  # fmt: skip
    assert [row[3] for row in counts[1:-1]] == [f"{images:,} ({lesions})" for images, lesions in TEST.values()]
    assert counts[-1][3] == "1,502 (1,120)"
    assert people[1] == ["Age in years", *["median 50, 0 to 85; missing 12 of 1,000"] * 3]
    assert people[4][1] == "histo 533, follow\\_up 370, consensus 90, confocal 7"
    assert synthetic[1] == ["akiec", "735", "980", "49", "196"]
    assert likeness[1:] == [
        ["akiec", "0.941", "0.872", "0.712", "0.912"],
        ["df", "0.961", "0.872", "0.712", "0.762"],
        ["vasc", *["n/a"] * 4],
    ]
    assert gans[1][:3] == ["akiec", "dcgan", "400 kimg on 229 real images, KID 0.031"]
    assert gans[3][:3] == [
        "vasc", "dcgan", "failed: the GAN of vasc diverged after 12.3 kimg: a loss is not a number",
    ]  # fmt: skip


def test_cards_infer_nothing_from_a_name():
    """Statements about HAM10000 are conditional, even if the folder has its name."""
    results = example(1)
    del results["population"]
    results["run"]["data"] = "/data/HAM10000"
    for text in (data_sheet(results), model_card(results)):
        lines = [line for line in text.splitlines() if "Vienna" in line]
        assert len(lines) == 1
        assert "If the data is HAM10000" in lines[0]
    assert "Population**: not recorded." in data_sheet(results)


def test_model_card_names_the_worst_off_group():
    text = model_card(example(2) | {"subgroups": example_subgroups()})
    fairness = text.split("## Fairness")[1].split("## Limitations")[0]
    (table,) = _tables(fairness)
    assert table[1:] == [
        ["Age: under 40 \\*", "900 (41)", "0.700 (0.400 to 0.800)", "0.700 (0.500 to 0.900)", "0.070"],
        ["Age: 60 and over", "900 (41)", "0.600 (0.300 to 0.700)", "0.700 (0.500 to 0.900)", "0.070"],
        ["Skin tone (estimated): dark \\*", "900 (41)", "0.500 (0.200 to 0.600)", "0.700 (0.500 to 0.900)", "0.070"],
    ]
    assert "**Worst-off group with augmented 100 %: Age: 60 and over, mean recall of the rare classes 0.600" in fairness
    assert "performance by group is below" in fairness
    assert "skin tone is estimated below" in fairness
    assert "performance by group was not measured" in model_card(example(2))


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a|b`c`*d*\n# e", "[x](https://example.org)", "x" * 999])
def test_cards_hostile_names_are_escaped(name: str):
    results = renamed(example(1, external=True), "df", name)
    results["run"] |= {"data": name, "split": name, "settings": {name: name}, "versions": {name: name}}
    results["external"]["data"] = name
    results["population"]["train"]["sex"] = {name: 1}
    results["synthetic"]["vasc"]["failed"] = name
    for text in (model_card(results), data_sheet(results)):
        assert "<script" not in text
        assert not re.search(r"(?<!\\)\]\(", text)
        assert "://" not in text
        assert not re.search(r"^# e", text, re.M)
        _tables(text)


def test_cards_null_figures_are_not_available():
    results = nulled(example(1, external=True))
    del results["population"]
    results["run"] |= {"malignant": [], "settings": {}}
    for text in (model_card(results), data_sheet(results)):
        assert "None" not in text
        assert not re.search(r"\bnan\b", text)
        _tables(text)


def test_population_counts_images(tmp_path: Path):
    """As in the subgroups, a value such as `unknown` is a missing one."""
    count = 13
    header = Header(classes=("nv",), image_size=8, split="train")
    rows = pd.DataFrame(
        {
            "image_id": [f"i{n}" for n in range(count)],
            "lesion_id": [f"l{n // 2}" for n in range(count)],
            "dx": "nv",
            "source": REAL,
            "pixel_sha256": "0" * 64,
            "age": [None, *[10.0 * n for n in range(count - 1)]],
            "sex": [None, "Unknown", None, *["female"] * 7, *["male"] * 3],
            "localization": [f"site {min(n, 9)}" for n in range(count)],
        }
    )
    with write_image_set(tmp_path / "set", header) as out:
        out.write(rows, [encode_png(np.zeros((8, 8, 3), np.uint8))] * count)
    found = population({"train": tmp_path / "set"})["train"].model_dump()
    assert (found["images"], found["lesions"]) == (13, 7)
    assert found["age"] == {"median": 55.0, "low": 0.0, "high": 110.0, "missing": 1}
    assert found["sex"] == {"female": 7, "male": 3, UNKNOWN_GROUP: 3}
    assert next(iter(found["localization"].items())) == ("site 9", 4)
    assert len(found["localization"]) == 9
    assert found["localization"][OTHER_GROUP] == 2
    assert found["dx_type"] == {UNKNOWN_GROUP: 13}


SOURCE = {
    "layout": "class folders", "metadata": [], "columns": {"dx": "name of the folder"}, "ignored": [], "folders": {},
    "renamed": {}, "unit": "image", "own_split": False, "notes": ["7 images have neither a lesion id nor a patient id"],
}  # fmt: skip


@pytest.mark.parametrize("seeds", [1, 2])
def test_cards_of_images_of_another_field_mention_no_skin_and_no_lesions(seeds: int):
    results = example(seeds, external=True)
    for number, name in enumerate(results["classes"].copy()):
        results = renamed(results, name, f"species{number}")
    results["run"] |= {"source": SOURCE, "malignant": [], "data": "/data/birds"}
    results["external"]["data"] = "/data/other"
    for text in (model_card(results), data_sheet(results), render_markdown(results), render_text(results)):
        for word in ("lesions", "test lesion", "skin", "Skin", "alignant", "benign", "HAM10000", "excised"):
            assert word not in text.replace(SOURCE["notes"][0], "")
    assert "Positive group: none" in model_card(results)
    assert SOURCE["notes"][0] in model_card(results)
    assert "Layout of the source: class folders" in data_sheet(results)


def test_cards_of_patients_count_patients():
    results = example(2)
    results["run"]["source"] = SOURCE | {"unit": "patient"}
    assert "On 1,502 real test images of 1,120 patients" in model_card(results)
    assert "patients" in render_text(results)
