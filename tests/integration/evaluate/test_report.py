"""The report: numbers in their cells, self-contained, reproducible bytes, small, safe with hostile names."""

import copy
import dataclasses
import itertools
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from components.evaluate.report import plots
from components.evaluate.report.formatting import show
from components.evaluate.report.gallery import Gallery, list_images
from components.evaluate.report.page import MAX_PAGE_BYTES
from components.evaluate.report.plots import Mark
from components.shared.arms import title_of
from components.shared.records import Curves
from tests.helpers.example_results import (
    ALL_ARMS,
    ARMS,
    CLASSES,
    RARE,
    TEST,
    example,
    example_champion,
    example_gallery,
    example_subgroups,
    nulled,
    renamed,
)
from tests.helpers.rendering import data_sheet, model_card, render_html, render_markdown, render_text, show_interval

NONE = Gallery()
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "--!><script>",
    "]]></text><script>",
    "$\\frac{a}{0}$ & {{ 7*7 }}",
    "a|b`c`*d*\n# e",
    "items",
    "https://example.org/x",
    pytest.param("皮膚" * 40, marks=pytest.mark.filterwarnings("ignore:Glyph")),
    "very long " * 200,
    "אבג \u202e df",
]


class Page(HTMLParser):
    """A parsed page: tables by id as rows of cell texts, attributes, tags, all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.named: dict[str, list[list[str]]] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: set[str] = set()
        self.text = ""
        self._cell = False
        self.feed(page)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.tables.append([])
            self.named[dict(attrs).get("id") or dict(attrs).get("class") or ""] = self.tables[-1]
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td"):
            self.tables[-1][-1].append("")
            self._cell = True
        elif tag in ("small", "br") and self._cell:
            self.tables[-1][-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self._cell = False
            self.tables[-1][-1][-1] = " ".join(self.tables[-1][-1][-1].split())

    def handle_data(self, data: str) -> None:
        self.text += data.replace("\xa0", " ")
        if self._cell:
            self.tables[-1][-1][-1] += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, name, value in self.attributes if name == attribute]


@pytest.fixture(scope="session")
def results() -> dict[str, Any]:
    return example(2, external=True)


@pytest.fixture(scope="session")
def html(results: dict[str, Any]) -> str:
    return render_html(results, example_gallery(2, 32))


@pytest.fixture(scope="session")
def page(html: str) -> Page:
    return Page(html)


def test_report_verdict_comes_first_with_effect_and_interval(results: dict[str, Any], page: Page) -> None:
    effect = results["effect"]
    value, interval = show(effect["value"], "+"), show_interval(effect, "+")
    head = page.text.index(
        "No evidence that synthetic images help Mean recall of the rare classes, augmented 100 % − oversampled: "
        f"{value} (95 % interval {interval})."
    )
    line = page.text.index(f"GAN effect augmented 100 % − oversampled {value} 95 % interval {interval} Gain")
    assert 0 < head < line < page.text.index("Recall: share of")


def gain_of(results: dict[str, Any], arm: str) -> dict[str, Any]:
    """Return the corrected difference of an arm to the baseline."""
    return next(it for it in results["effect"]["remedies"] if it["arm"] == arm)


def test_pages_show_one_interval_of_the_gain(results: dict[str, Any], page: Page) -> None:
    """Regression: three pages had an interval without the correction for the number of arms, beside one with it."""
    gain, other = gain_of(results, "augmented@1"), results["effect"]["augmented_minus_baseline"]
    value, interval, narrow = show(gain["value"], "+"), show_interval(gain, "+"), show_interval(other, "+")
    assert interval != narrow
    head = (
        f"Gain augmented 100 % − baseline; includes rebalancing {value} 95 % interval {interval}, corrected for 2 arms"
    )
    assert head in page.text
    assert page.named["remedies"][3][2] == page.named["comparison"][9][5] == f"{value} {interval}"
    text = render_text(results)
    line = f"gain in mean recall of the rare classes: {value} ({interval}, corrected for 2 arms)"
    assert line.replace("−", "-") in text
    for other_page in (page.text, text.replace("-", "−"), render_markdown(results), model_card(results)):
        assert narrow not in other_page
        assert "mprovement" not in other_page


def test_report_comparison_table_has_the_results(results: dict[str, Any], page: Page) -> None:
    head, *rows = page.named["comparison"]
    assert head == ["Recall by class", "● Baseline", "■ Oversampled", "◆ Augmented 100 %", "GAN effect augm. − over.",
                    "Gain augm. − base.; includes rebalancing"]  # fmt: skip
    arms, effect = [results["arms"][arm] for arm in ARMS], results["effect"]
    for row, dx in zip(rows, CLASSES, strict=False):
        images, lesions = TEST[dx]
        assert row[0].startswith(dx)
        assert f"{images:,} images, {lesions} lesions" in row[0]
        assert ("rare" in row[0].split()) == (dx in RARE)
        few = effect["by_class"][dx]
        needed = few["lesions_needed"]
        assert ("no number of lesions suffices with 2 seeds" in row[0]) == (few["few"] and needed is None)
        assert (f"{needed} lesions needed" in row[0].replace(",", "")) == (few["few"] and needed is not None)
        assert ("GAN failed" in row[0]) == (dx == "vasc")
        for cell, arm in zip(row[1:4], arms, strict=True):
            assert cell == f"{show(arm['recall'][dx])} {show_interval(arm['recall_interval'][dx])}"
        assert row[4] == f"{show(few['value'], '+')} {show_interval(few, '+')}"
        assert row[5] == show(arms[2]["recall"][dx] - arms[0]["recall"][dx], "+")
    assert rows[7][0] == "Over all classes"
    scalars = {row[0]: row[1:] for row in rows[8:]}
    brier = effect["by_metric"]["brier"]
    assert scalars["Brier score ↓"][2:] == [
        f"{show(arms[2]['brier'])} {show_interval(arms[2]['intervals']['brier'])}",
        f"{show(brier['gan']['value'], '+')} {show_interval(brier['gan'], '+')}",
        f"{show(brier['improvement']['value'], '+')} {show_interval(brier['improvement'], '+')}",
    ]
    assert scalars["Mean recall, rare classes primary metric"][3].startswith(show(effect["value"], "+"))
    assert [name.partition(" ↓")[0] for name in scalars if "↓" in name] == [
        "Balanced log loss", "Brier score", "Calibration error", "Calibration error, scaled",
    ]  # fmt: skip
    assert len(scalars) == 11


@pytest.mark.usefixtures("no_figures")
def test_report_external_data_have_the_same_table_and_a_verdict(results: dict[str, Any], page: Page) -> None:
    outside = results["external"]
    rows = {row[0].split()[0]: row for row in page.named["comparison-outside"]}
    assert rows["akiec"][1:] == ["n/a"] * 5  # no image of it
    assert "0 images, 0 lesions" in rows["akiec"][0]
    assert rows["mel"][3].startswith(show(outside["arms"]["augmented@1"]["recall"]["mel"]))
    detail = f"augmented 100 % − oversampled: {show(outside['effect']['value'], '+')} (95"
    assert page.text.count(detail) == 2  # in the head and in its section
    images = sum(it["images"] for it in outside["counts"].values())
    assert f"{images:,} images of" in page.text
    alone = Page(render_html(example(2), NONE))
    assert "comparison-outside" not in alone.named
    assert "External data" not in alone.text


def test_report_other_tables_have_the_results(results: dict[str, Any], page: Page) -> None:
    arms = results["arms"]
    assert page.named["confusion"][1] == ["akiec", *map(str, arms["augmented@1"]["confusion"][0])]
    figures = [show(arms[arm][key]["mel"]) for key in ("precision", "f1", "auc") for arm in ARMS]
    assert page.named["metrics"][6] == ["mel", *figures]
    assert page.named["splits"][2] == ["akiec", "229", "160", "49", "34", "49", "34"]
    assert page.named["splits"][-1] == ["All", "7,010", "5,230", "1,502", "1,120", "1,502", "1,120"]
    assert page.named["arms"][3] == ["◆ Augmented 100 %", "9,214", "45, 46", "34.5, 35.5"]
    by_seed = [arms[arm]["by_seed"]["2"]["rare_recall"] for arm in ARMS]
    assert page.named["by-seed"][2][:6] == [
        "2", *map(show, by_seed), show(by_seed[2] - by_seed[1], "+"), show(by_seed[2] - by_seed[0], "+"),
    ]  # fmt: skip
    assert "how often an image of the training split was shown, mean over these images" in page.text
    assert page.named["population"][1][1] == "median 50, 0 to 85 missing: 12 of 1,000 images"


@pytest.mark.usefixtures("no_figures")
def test_report_reproducibility_lists_the_run(page: Page) -> None:
    details = dict(page.named["details"])
    assert details["Data SHA-256"] == "3f" * 32
    assert details["Split SHA-256"] == "a7" * 32
    assert details["Seeds"] == "7 (split, GANs, sampling); 1, 2 (classifiers)"
    assert (details["gan_kimg"], details["Classifier: epochs"]) == ("400.0", "50")
    assert details["Classifier: parameters"] == "16,877,511"
    assert details["GAN of df, SHA-256"] == "1b" * 32
    assert details["Time: Classifier, baseline"] == "10 min 06 s, 2 models of 5 min 03 s"
    assert details["Time: GAN of df"] == "1 h 15 min"


def test_report_failed_gan_is_stated(page: Page, results: dict[str, Any]) -> None:
    assert page.text.index("The GAN of vasc failed") < page.text.index("Comparison Recall: share")
    assert "The GAN of this class failed: the GAN of vasc diverged after 12.3 kimg" in page.text
    assert "**The GAN of vasc failed**" in render_markdown(results)
    assert "No synthetic images of vasc, its GAN failed: the GAN of vasc diverged" in render_text(results)


def test_report_quality_figures_and_neighbours(page: Page) -> None:
    assert "735 synthetic images from dcgan, trained for 400 kimg on 229 real images. KID 0.031, density" in page.text
    head, akiec, df = page.named["quality"]
    assert head[1:5] == ["Used", "Generated", "Copies", "Rejected"]
    assert [" ".join(cell.split()) for cell in akiec] == [
        "akiec", "735", "980", "49 5.0 %", "196 20.0 %", "0.031", "0.812", "0.734", "0.687",
        "350", "validation and training",
    ]  # fmt: skip
    assert page.named["likeness"][1:] == [
        ["akiec", "0.941", "0.872", "0.712", "0.912"],
        ["df", "0.961", "0.872", "0.712", "0.762"],
    ]
    assert "texture 0.687, separability 0.941, label fidelity 0.712." in page.text
    assert "AUC of a classifier that distinguishes real training images from synthetic ones, by features" in page.text
    assert df[3].split()[:2] == ["89", "9.1"]
    assert "By pixels; copies have a distance below 0.620 distance 0.710 ISIC_0000000 distance 0.810" in page.text
    assert "Synthetic images of df above the training images nearest to them" in page.values("alt")
    pair = "distance 0.61 (1 = median between real lesions) ISIC_0000000"
    explained = page.text.index("A distance of 1 is the median between a real training image and the nearest one of")
    assert page.text.index("it does not prove privacy") < explained < page.text.index(pair)
    assert "Samples of the GAN of df after 400 kimg" in page.values("alt")
    assert "Nearest training image, ISIC_0000000" in page.values("alt")
    assert "akiec classified as nv 0.97" in page.text
    assert "A blank map" not in page.text
    assert "KID: kernel distance to real images of the class; 0 if they do not differ. It is optimistic" in page.text


@pytest.mark.usefixtures("no_figures")
def test_report_explains_a_blank_map_if_one_is() -> None:
    gallery = example_gallery(1, 32)
    gallery.right[0] = dataclasses.replace(gallery.right[0], is_blank=True)
    text = Page(render_html(example(1), gallery)).text
    assert "A blank map: no region raised this class’s score." in text


@pytest.mark.usefixtures("no_figures")
def test_report_folds_classes_without_synthetic_images_and_the_reproducibility() -> None:
    html = render_html(example(1), example_gallery(1, 32))
    page = Page(html)
    assert "4 classes without synthetic images: bcc, bkl, mel, nv" in page.text
    assert html.count("<details") == html.count("</details>") == 2
    folded = html[html.index("<details>") : html.index("</details>")]
    assert [name for name in CLASSES if f"<h4>{name}</h4>" in folded] == ["bcc", "bkl", "mel", "nv"]
    assert "not selected by their appearance" in page.text
    assert "so the budget is rounded up to a multiple of the batch" in page.text


def test_report_warns_of_synthetic_images_unlike_real_ones() -> None:
    """Separability is above .95, or label fidelity is lower than the recall of real images by more than .10."""

    def warnings(**changes: float | None) -> list[str]:
        results = example(1)
        details = results["synthetic"]["df"]
        del results["synthetic"]["akiec"]
        details |= dict.fromkeys(("separability", "separability_spectrum", "label_fidelity", "validation_recall"))
        details |= changes
        text = Page(render_html(results, NONE)).text
        return re.findall(r"Warning\. (df: [^.]*\.\d+[^.]*(?:\.\d+[^.]*)?\.)", text)

    assert warnings() == warnings(separability=0.95, separability_spectrum=0.5) == []
    assert warnings(label_fidelity=0.5, validation_recall=0.6) == warnings(label_fidelity=0.1) == []
    easily = "df: synthetic images are easily distinguished from real ones (AUC {})."
    assert warnings(separability=0.951) == [easily.format("0.951")]
    assert warnings(separability=0.97, separability_spectrum=0.99) == [easily.format("0.990")]
    assert warnings(label_fidelity=0.0, validation_recall=0.101) == [
        "df: classifiers trained on real images assign a smaller share of the synthetic images to the class (0.000) "
        "than of the real validation images (0.101)."
    ]
    assert len(warnings(separability=1.0, label_fidelity=0.1, validation_recall=0.9)) == 2


@pytest.mark.usefixtures("no_figures")
def test_report_subgroups_have_their_figures_and_the_worst_one_is_named() -> None:
    page = Page(render_html(example(2) | {"subgroups": example_subgroups()}, NONE))
    _, _, young, old, dark = page.named["subgroups"]
    counts = "1,203 images, 900 lesions; 41 of rare classes, 120 positive"
    assert young[0] == f"Age: under 40 {counts} 388 lesions of rare classes needed"
    assert old[0] == f"Age: 60 and over worst-off {counts}"
    assert dark[0] == f"Skin tone (estimated): dark {counts} no number of lesions suffices with 2 seeds"
    recalls, sensitivities = ["0.400", "0.500", "0.600 0.300 to 0.700"], ["0.700", "0.700", "0.700 0.500 to 0.900"]
    assert old[1:] == [*recalls, *sensitivities, "0.050", "0.060", "0.070"]
    assert (
        "Worst-off group with augmented 100 %: Age: 60 and over, mean recall of the rare classes 0.600 "
        "(0.300 to 0.700) on 41 lesions of them, the only one of the groups with enough lesions." in page.text
    )
    assert "which is estimated: the typology angle" in page.text


@pytest.mark.usefixtures("no_figures")
def test_report_states_once_that_every_group_is_too_small_and_lists_those_without_rare_lesions_last() -> None:
    subgroups = example_subgroups()
    first, second, _ = subgroups["groups"]
    first["rare_lesions"] = 0
    second["few"] = True
    page = Page(render_html(example(2) | {"subgroups": subgroups}, NONE))
    names = [row[0].partition(" 1,203")[0] for row in page.named["subgroups"][2:]]
    assert names == ["Age: 60 and over worst-off", "Skin tone (estimated): dark", "Age: under 40"]
    assert page.text.count("too few lesions: a difference of 0.10 between augmented 100 % and oversampled") == 1
    assert "A group needs at least 30 lesions of rare classes." in page.text
    assert not any("needed" in row[0] or "suffices" in row[0] for row in page.named["subgroups"])


@pytest.mark.usefixtures("no_figures")
def test_report_without_subgroups_or_positive_classes_omits_them() -> None:
    text = render_html(example(1), NONE)
    assert "Results by subgroup" not in text
    results = example(1) | {"subgroups": example_subgroups() | {"worst": None}}
    results["run"]["malignant"] = []
    for group in results["subgroups"]["groups"]:
        for figures in group["arms"].values():
            figures["rare_recall"] = {"value": None, "low": None, "high": None}
    page = Page(render_html(results, NONE))
    assert len(page.named["subgroups"][2]) == 1 + 2 * 3
    assert "The worst-off group cannot be named" in page.text


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.usefixtures("no_figures")
def test_report_hostile_subgroups_are_escaped(name: str) -> None:
    subgroups = example_subgroups()
    subgroups["groups"][1] |= {"attribute": "localization", "group": name}
    results = example(1) | {"subgroups": subgroups}
    page = Page(render_html(results, NONE))
    assert not page.tags & {"script", "x"}
    assert not [attribute for _, attribute, _ in page.attributes if attribute.startswith("on")]
    card = model_card(results)
    assert "<script" not in card
    assert "://" not in card
    row = next(line for line in card.splitlines() if line.startswith("| Site: "))
    assert len(re.findall(r"(?<!\\)\|", row)) == 6


def _marks(svg: str) -> list[float]:
    """Return the horizontal places of the marks of a figure, in points, in the order of their drawing."""
    axes = svg[: svg.rindex("<defs")]
    return [float(x) for x in re.findall(r'<use [^>]*x="([\d.]+)" [^>]*style="fill: #', axes)]


def test_marks_of_the_recall_are_at_their_values(html: str, results: dict[str, Any]) -> None:
    plot = html[html.index('aria-label="Recall by class') :]
    places = _marks(plot[: plot.index("</svg>")])
    recalls = [results["arms"][arm]["recall"][dx] for dx in CLASSES for arm in ARMS]
    assert len(places) == len(recalls) == 21
    slope, zero = np.polyfit(recalls, places, 1)
    assert slope > 200  # points from 0 to 1
    assert places == pytest.approx([zero + slope * value for value in recalls], abs=0.01)


def test_intervals_have_a_scale_for_any_values() -> None:
    for values in ([0.0, -0.0921, 0.0694], [0.5], [0.0, 1e-9], [0.2, None, math.nan]):
        known = [value for value in values if value is not None and not math.isnan(value)]
        svg = plots.intervals("salt", "Label <x>", {f"row {n}": [[Mark(v)]] for n, v in enumerate(values)})
        assert len(_marks(svg)) == len(known)
        assert 'aria-label="Label &lt;x&gt;"' in svg
        assert svg.count("<text") >= len(values) + 2
        assert svg == plots.intervals("salt", "Label <x>", {f"row {n}": [[Mark(v)]] for n, v in enumerate(values)})
    assert plots.intervals("salt", "none", {"row": [[Mark(None)]]}).count("<text") >= 3


def test_intervals_spread_equal_dots_and_keep_means_within_their_row() -> None:
    """Regression: two marks were visible for three seeds, and the lines of means touched each other."""
    means = [Mark(0.5, is_mean=True)]
    lines = {name: [[*(Mark(value, arm="oversampled") for value in values), *means]] for name, values in (
        ("equal", (0.4, 0.4, 0.4)), ("apart", (0.1, 0.5, 0.9)), ("near", (0.9, 0.1, 0.904)),
    )}  # fmt: skip
    svg = plots.intervals("salt", "seeds", lines)
    axes = svg[: svg.rindex("<defs")]
    marks = re.findall(r'<use [^>]*x="([\d.]+)" y="([\d.]+)" style="fill: #', axes)
    (one, two, three), (*same,), (right, left, beside) = [[float(y) for _, y in marks[n : n + 3]] for n in (0, 3, 6)]
    assert two - one == pytest.approx(three - two)
    assert two - one > 8  # points: a mark has a size of 7 and an edge
    assert same == [same[0]] * 3
    assert (left, right) == pytest.approx(((right + beside) / 2, left - (beside - right) / 2))
    assert beside - right > 8
    ends = [
        sorted(map(float, ys))
        for ys in re.findall(r'd="M [\d.]+ ([\d.]+) \nL [\d.]+ ([\d.]+) \n" clip[^>]*#1b1f24', axes)
    ]
    assert len(ends) == 3
    assert all(above[1] + 3 < below[0] for above, below in itertools.pairwise(ends))
    assert ends[0][0] > float(re.search(r'<rect x="[\d.]+" y="([\d.]+)"', svg)[1])  # type: ignore[index]


def test_precision_recall_curves_begin_at_the_first_true_positive() -> None:
    """Regression: a curve began with a vertical stroke from 0, the precision of the image with the highest score."""
    curves = {"baseline": Curves.model_construct(pr={"df": {"recall": [0, 0.1, 1], "precision": [0, 0.5, 0.25]}})}
    svg = plots.precision_recall("salt", curves, "df", 0.2)
    (path,) = re.findall(r'd="(M[^"]*)" style="[^"]*#666666', svg)
    points = [tuple(map(float, point.split()[1:])) for point in path.strip().splitlines()]
    assert len(points) == 2
    assert points[0][1] < points[1][1]  # the precision falls


def test_intervals_draw_means_as_lines_and_cut_long_names() -> None:
    lines = {"x" * 90: [[Mark(0.2, arm="oversampled", hollow=True), Mark(0.4, 0.1, 0.6), Mark(0.3, is_mean=True)]]}
    svg = plots.intervals("salt", "seeds", lines, "← worse", (0.0, 1.0))
    first, second = _marks(svg)
    assert first < second
    assert "x" * 23 + "…" in svg
    assert "x" * 24 not in svg
    assert "← worse" in svg


def test_markdown_tables_have_at_most_five_columns(results: dict[str, Any]) -> None:
    """The side panel of the Kubeflow UI cuts off the sixth."""
    text = render_markdown(results)
    assert text.startswith(
        "## No evidence that synthetic images help\n\nMean recall of the rare classes, augmented 100 %"
    )
    arms, effect = results["arms"], results["effect"]
    recalls = " | ".join(show(arms[arm]["recall"]["nv"]) for arm in ARMS)
    gap = effect["by_class"]["nv"]
    few = " \\*" * gap["few"]
    assert f"\n| nv, 810 lesions{few} | {recalls} | {show(gap['value'], '+')} ({show_interval(gap, '+')}) |" in text
    gain = gain_of(results, "augmented@1")
    assert f"includes rebalancing | {show(gain['value'], '+')} | {show_interval(gain, '+')} |\n" in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.M)
    assert [len(table.splitlines()) for table in tables] == [4, 20, 20]
    assert {line.count("|") for table in tables[1:] for line in table.splitlines()} == {6}
    assert len(text) < 400_000
    assert "None" not in text


@pytest.fixture(scope="module")
def all_arms() -> dict[str, Any]:
    return example(3, arms=ALL_ARMS)


def test_model_card_states_plan_and_code() -> None:
    results = example(1)
    assert "not calculated beforehand" in model_card(results)
    assert "protocol, registration, ethics approval" in model_card(results)
    plan = {"created": "2026-01-02 03:04 UTC", "sha256": "a" * 64, "deviations": ["two seeds | fewer"]}
    results["run"] |= {"plan": plan, "code": "b" * 64}
    card = model_card(results)
    assert f"planned on 2026-01-02 03:04 UTC; SHA-256 of the plan `{'a' * 64}`; the run deviates from it: two" in card
    assert f"- **Code**: of the evaluation: SHA-256 `{'b' * 64}`; see" in card
    assert "not calculated beforehand" not in card
    assert "protocol, registration" not in card


def test_report_and_model_card_state_how_synthetic_images_were_used() -> None:
    results = example(1)
    results["run"] |= {"synthetic_until": 0.5, "synthetic_selection": "label"}
    selected = "selected by the class that the feature extractor predicts"
    what = f"with synthetic images; synthetic images {selected}; only repeats after 50 % of the epochs"
    page = Page(render_html(results, example_gallery(2)))
    assert what in " ".join(page.named["remedies"][3])
    assert f"Rejected: not among those {selected}." in page.text
    assert what in model_card(results)
    assert f"The images were {selected}." in data_sheet(results)


def test_report_narrow_columns_name_a_source_without_its_share() -> None:
    """Regression: a short name was cut within the share, as in "Zoo@."."""
    page = Page(render_html(renamed(example(1), "augmented@1", "zoo@1"), NONE))
    assert page.named["metrics"][1][:3] == ["● Base.", "■ Over.", "◆ Zoo"]
    assert page.named["comparison"][0][-2:] == [
        "Effect of zoo zoo − over.", "Gain zoo − base.; includes rebalancing",
    ]  # fmt: skip


def test_pages_with_synthetic_images_of_all_classes_state_their_share_of_each_class() -> None:
    """Regression: the share was stated as that of the added images, which replace no repeat then."""
    results = example(2, external=True, arms=("baseline", "oversampled", "augmented@0.25", "augmented@0.5"))
    results["run"] |= {"synthetic_scope": "all"}
    page = Page(render_html(results, NONE))
    assert "in addition synthetic images of every class, 50 % of the images of each: of 2 such arms" in page.text
    assert "the percentage is their share of the images of each class, and" in page.text
    for text in (render(results).replace("\xa0", " ") for render in (render_text, render_markdown, model_card)):
        assert "ugmented 50 %: 50 % of the images of each class are synthetic" in text
    for text in (page.text, *(render(results) for render in (render_text, render_markdown, model_card))):
        assert "added images" not in text


def test_report_remedies_have_a_row_for_each_arm(all_arms: dict[str, Any]) -> None:
    page = Page(render_html(all_arms, example_gallery(2)))
    rows, effect = page.named["remedies"][1:], all_arms["effect"]
    assert len(rows) == len(ALL_ARMS)
    assert effect["arm"] == effect["best"] == "augmented@0.5"  # lowest loss on validation
    titles = [row[0].split(" real images")[0].split(" as oversampled")[0] for row in rows]
    assert titles[3] == "■ Balanced sampling"
    assert titles[7] == "◆ Augmented 50 % best on validation"
    gains = {it["arm"]: it for it in effect["remedies"]}
    figures = all_arms["arms"]["class_weights"]
    gain = gains["class_weights"]
    assert rows[2][1:] == [
        f"{show(figures['rare_recall'])} {show_interval(figures['intervals']['rare_recall'])}",
        f"{show(gain['value'], '+')} {show_interval(gain, '+')}",
        *(show(figures[key]) for key in (
            "corrected_recall", "balanced_accuracy", "macro_auc", "balanced_log_loss", "validation_log_loss",
        )),
        "15 min 10 s",
    ]  # fmt: skip
    assert rows[0][2] == "–"
    for dose in effect["doses"]:
        assert f"{title_of(dose['arm'])} {show(dose['value'], '+')}" in " ".join(
            value for _, _, value in page.attributes
        )
    assert "corrected for the 3 arms with synthetic images to choose from. Augmented 50 % is better" in page.text
    other = effect["augmented_minus_best_control"]
    assert (
        "Against the best other remedy on validation (logit adjustment), augmented 50 % differs by "
        f"{show(other['value'], '+')} ({show_interval(other, '+')})" in page.text
    )


def test_markdown_and_text_show_the_remedies_of_a_run_with_controls(all_arms: dict[str, Any]) -> None:
    markdown, text = render_markdown(all_arms), render_text(all_arms)
    for arm in ALL_ARMS:
        recall = show(all_arms["arms"][arm]["rare_recall"])
        assert re.search(rf"^\| {title_of(arm).capitalize()}( \(best on validation\))? \| {recall} \|", markdown, re.M)
        assert re.search(rf"^{title_of(arm)}( \*)? +{recall} ", text, re.M)
    assert max(map(len, text.splitlines())) <= 100
    assert "interval, all" not in render_text(example(3))


def test_render_text_fits_a_terminal(results: dict[str, Any]) -> None:
    lines = render_text(results).splitlines()
    assert max(map(len, lines)) <= 100
    gap, arms = results["effect"]["by_class"]["df"], results["arms"]
    row = next(line for line in lines if line.startswith("df *"))
    cells = [show(arms[arm]["recall"]["df"]) for arm in ARMS] + [show(gap["value"], "+")]
    assert row.split()[2:7] == ["11", *[cell.replace("−", "-") for cell in cells]]
    assert lines[0] == "No evidence that synthetic images help."
    assert any(line.startswith("External data, /data/isic-elsewhere: ") for line in lines)
    assert "External data" not in render_text(example(2))


def test_report_is_self_contained_and_accessible(html: str, page: Page) -> None:
    assert not page.tags & {"script", "link", "iframe", "object", "base", "form", "metadata"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for _, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action"):
            assert value.startswith(("data:image/jpeg;base64,", "#"))
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert len(page.values("id")) == len(set(page.values("id")))
    targets = {value.removeprefix("#") for name in ("href", "xlink:href") for value in page.values(name)}
    assert targets <= set(page.values("id"))
    assert ("html", "lang", "en") in page.attributes
    links = {value for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert {"#result", "#section-remedies", "#section-images", "#section-reproducibility"} < links
    assert page.values("target") == ["_top"] * len(links)
    assert "width=device-width, initial-scale=1" in page.values("content")
    assert "Synthetic df, image 2 of 2" in page.values("alt")
    assert len([1 for tag, name, _ in page.attributes if (tag, name) == ("img", "alt")]) == html.count("<img ")


def test_report_same_results_give_the_same_bytes() -> None:
    assert render_html(example(2), example_gallery(1, 32)) == render_html(example(2), example_gallery(1, 32))


@pytest.mark.parametrize("noise", [5.0, 60.0])  # a photograph; harder to compress than any photograph
def test_report_with_all_images_and_five_seeds_is_small(noise: float) -> None:
    gallery = example_gallery(8, 192, noise, rare=list(CLASSES[:-1]))
    html = render_html(example(5, external=True), gallery)
    assert len(html.encode()) <= MAX_PAGE_BYTES < 2_000_000
    assert html.count('src="data:image/jpeg;base64,') == len(list_images(gallery)) > 200


@pytest.mark.usefixtures("no_figures")
def test_report_fewer_images_get_a_better_quality() -> None:
    few = render_html(example(2), example_gallery(1, 192, 60.0))
    many = render_html(example(2), example_gallery(8, 192, 60.0))

    def best(html: str) -> int:
        return max(map(len, re.findall(r'src="data:image/jpeg;base64,([^"]*)"', html)))

    assert best(few) > 1.5 * best(many)


@pytest.mark.usefixtures("no_figures")
def test_report_too_many_images_are_omitted() -> None:
    gallery = example_gallery(8, 64, 60.0)
    classes = [f"c{n}" for n in range(700)]
    crowd = Gallery(real={c: [copy.copy(one) for one in gallery.real["df"]] for c in classes})
    html = render_html(example(1), crowd)
    assert len(html.encode()) <= MAX_PAGE_BYTES
    assert "<img" not in html


@pytest.mark.usefixtures("no_figures")
def test_report_text_on_every_shade_is_readable() -> None:
    results = example(1)
    results["classes"] = [f"c{n}" for n in range(30)]
    for arm in results["arms"].values():
        arm["confusion"] = [[n, 30 - n, *[0] * 28] for n in range(30)]

    def luminance(colour: list[int]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    cells = re.findall(r"background: rgb\((\d+), (\d+), (\d+)\); color: (#fff|#000)", render_html(results, NONE))
    assert len(cells) == 3 * 30 * 30
    for *background, text in set(cells):
        low, high = sorted((luminance([int(v) for v in background]), luminance([255 if text == "#fff" else 0] * 3)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize("name", HOSTILE)
def test_report_hostile_names_are_escaped(name: str) -> None:
    results = renamed(example(1, external=True), "df", name)
    for place in ("data", "data_sha256", "split", "split_sha256"):
        results["run"][place] = name
    results["external"]["data"] = name
    results["run"]["settings"] = {name: name, "list": [name]}
    results["run"]["versions"] = {name: name}
    results["population"]["train"]["sex"] = {name: 3}
    results["synthetic"][name] |= {"architecture": name, "model_sha256": name}
    results["synthetic"]["vasc"]["failed"] = name
    gallery = renamed(example_gallery(1, 32), "df", name)
    html = render_html(results, gallery)
    page = Page(html)
    shown = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    assert not page.tags & {"script", "x"}
    assert not [attribute for _, attribute, _ in page.attributes if attribute.startswith("on")]
    assert "49" not in shown
    assert not set(html) & set("\u202e\x1b")
    assert [row[0][:20] for row in page.named["metrics"]].count(shown[:20]) == 1
    assert any(alt.startswith(f"Real {shown[:20]}") for alt in page.values("alt"))
    markdown = render_markdown(results)
    assert "<" not in markdown
    assert "://" not in markdown
    row = next(line for line in markdown.splitlines() if " (rare), 11 lesions" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    assert re.findall(r"(?<!\\)[*`]", row) == []
    assert max(map(len, render_text(results).splitlines())) <= 100
    assert len(html.encode()) < 2_000_000


def test_render_text_escape_sequences_are_removed() -> None:
    text = render_text(renamed(example(1), "df", "\x1b[31mdf\x07\r"))
    assert not set(text) & set("\x1b\x07\r")
    assert "[31mdf *" in text


def test_report_null_figures_are_not_available() -> None:
    """All figures of the results are null."""
    results = nulled(example(2, external=True))
    page = Page(render_html(results, example_gallery(1, 32)))
    assert page.named["comparison"][1][1:] == ["n/a"] * 5
    assert all(row[1:] == ["n/a"] * 5 for row in page.named["comparison"][9:])
    for text in (page.text, render_text(results), render_markdown(results)):
        assert "nan" not in re.findall(r"[a-z]+", text)
        assert "None" not in text
        assert "cannot be compared on these test images" in text


def test_report_class_without_test_images_is_not_available() -> None:
    results = example(2)
    results["splits"]["test"]["df"] = {"images": 0, "lesions": 0}
    for arm in results["arms"].values():
        arm["support"]["df"], arm["auc"]["df"], arm["recall_interval"]["df"] = 0, None, [None, None]
        arm["recall"]["df"], arm["precision"]["df"], arm["confusion"][3] = 0.0, math.nan, [0] * 7
        arm["auc"]["vasc"], arm["macro_auc"] = None, None
        del arm["curves"]["roc"]["df"], arm["curves"]["pr"]["df"]
        arm["models"]["1"]["history"] = {"loss": [None, math.nan], "val_loss": []}
    results["effect"]["by_class"]["df"] |= {"value": None, "low": None, "high": None, "p_holm": None}
    page = Page(render_html(results, NONE))
    assert page.named["comparison"][4][1:] == ["n/a"] * 5
    assert page.named["metrics"][5] == ["df", *["n/a"] * 9]
    assert page.named["metrics"][8][-3:] == ["n/a"] * 3
    assert not re.search(r"\bnan\b", render_text(results) + render_markdown(results))


@pytest.mark.usefixtures("no_figures")
def test_report_one_seed_is_stated() -> None:
    text = Page(render_html(example(1), NONE)).text
    assert "One split and one seed" in text
    assert "times with different random seeds" not in text
    assert "with one seed there is no verdict" in text
    several = Page(render_html(example(2), NONE)).text
    assert "2 times with different random seeds" in several
    assert "One split and one seed" not in several


@pytest.mark.usefixtures("no_figures")
def test_report_pooled_folds_are_listed() -> None:
    results = example(2)
    fold = {"split": "1/2", "split_sha256": "a" * 64, "verdict": "worse", "value": -0.0312}
    results["run"]["pooled_lesions"] = {"tested": 1100, "all": 1120}
    results["run"]["folds"] = [fold, fold | {"split": "2/2", "verdict": "no evidence", "value": None}]
    page = Page(render_html(results, NONE))
    assert page.named["folds"][1:] == [["1/2", "−0.031", "worse"], ["2/2", "n/a", "no evidence"]]
    assert "1,100 of the 1,120 lesions are test lesions of one fold each; the others were never tested" in page.text
    assert "One split" not in page.text
    assert "Folds share most of their training images" in page.text


@pytest.mark.usefixtures("no_figures")
def test_report_pooled_folds_state_what_is_of_the_first_fold() -> None:
    """Regression: the report stated that no lesion is in two splits, above the training split of one fold."""
    results = example(2)
    whole = Page(render_html(results, NONE))
    assert whole.named["splits"][0] == ["Class", "Train", "Validation", "Test"]
    assert "All images of a lesion are in the same split. data_profile.html of the run shows more" in whole.text
    assert "fold 1" not in whole.text
    fold = {"split": "1/2", "split_sha256": "a" * 64, "verdict": "worse", "value": -0.0312}
    results["run"]["folds"] = [fold, fold | {"split": "2/2"}]
    page = Page(render_html(results, NONE))
    assert page.named["splits"][0] == ["Class", "Train (fold 1)", "Validation (fold 1)", "Test"]
    assert page.named["arms"][0][1] == "Training rows (fold 1)"
    assert "same split" not in page.text
    assert "data_profile" not in page.text
    assert "Of fold 1: each fold has its own GANs and images. Measured in the features" in page.text
    assert "The GAN of vasc failed (fold 1)." in page.text
    assert "735 synthetic images (fold 1) from dcgan" in page.text
    assert dict(page.named["details"])["Time: GAN of df (fold 1)"] == "1 h 15 min"
    assert "failed (fold 1)**" in render_markdown(results)
    assert "its GAN failed (fold 1):" in render_text(results)


@pytest.mark.usefixtures("no_figures")
def test_report_images_may_be_absent() -> None:
    html = render_html(example(1), NONE)
    assert "<img" not in html
    assert "None" not in Page(html).text  # or it would mean that no malignant lesion was called benign
    html = render_html(example(1), Gallery(real={"bcc": example_gallery(1, 32).real["bcc"]}))
    assert html.count("<img") == 1
    assert "1 class without synthetic images: bcc" in Page(html).text


@pytest.mark.usefixtures("no_figures")
def test_report_does_not_change_the_results() -> None:
    results = example(2, external=True)
    before = copy.deepcopy(results)
    render_html(results, NONE)
    render_markdown(results)
    render_text(results)
    assert results == before


def test_report_several_seeds_show_no_p_value(page: Page, results: dict[str, Any]) -> None:
    """Regression: p-values that ignore the seeds, and "by the augmented arm alone" for "in more seeds"."""
    exact = results["effect"]["mcnemar"]
    assert (
        f"Augmented 100 % is better on {exact['lesions_gained']} test lesions of rare classes and worse on "
        f"{exact['lesions_lost']}: they are classified correctly in more or in fewer seeds than by oversampled."
        in page.text
    )
    confirms = "confirms" if results["effect"]["permutation"]["passed"] else "does not confirm"
    assert f"a paired permutation test, which {confirms} an effect here. Its p-value is not shown" in page.text
    assert "p =" not in page.text


@pytest.mark.usefixtures("no_figures")
def test_report_one_seed_shows_the_tests_at_lesion_level() -> None:
    results = example(1)
    exact, text = results["effect"]["mcnemar"], Page(render_html(results, NONE)).text
    gained, lost = exact["lesions_gained"], exact["lesions_lost"]
    assert f"is better on {gained} test lesions of rare classes and worse on {lost} than oversampled" in text
    p = results["effect"]["permutation"]["p"]
    assert f"McNemar’s exact test: p = {show(exact['p'])}; paired permutation test: p = {show(p)}" in text


@pytest.mark.usefixtures("no_figures")
def test_report_generated_demo_data_are_stated_everywhere() -> None:
    results = example(1)
    renderers = (lambda it: render_html(it, NONE), render_markdown, render_text, model_card, data_sheet)
    for render in renderers:
        assert "demo data" not in render(results)
    results["run"]["data"] = "demo"
    for render in renderers:
        assert "generated demo data" in " ".join(render(results).split())
    page = Page(render_html(results, NONE)).text
    assert page.index("generated demo data") < page.index("GAN effect")
    assert "Vienna" not in page


@pytest.mark.usefixtures("no_figures")
def test_report_many_classes_have_no_confusion_matrix() -> None:
    results = example(1)
    results["classes"] = [f"c{n}" for n in range(31)]
    html = render_html(results, NONE)
    assert "31 classes do not fit on the page" in html
    assert "confusion" not in Page(html).named


@pytest.mark.usefixtures("no_figures")
def test_report_counts_have_separators() -> None:
    results = example(1)
    results["arms"]["baseline"]["train_rows"] = int(np.int64(7010))
    assert "7,010" in render_html(results, NONE)


def test_report_of_images_of_another_field_mentions_no_skin_and_no_lesions() -> None:
    results, gallery = example(2, external=True), example_gallery()
    for number, name in enumerate(CLASSES):
        results, gallery = renamed(results, name, f"species{number}"), renamed(gallery, name, f"species{number}")
    gallery.malignant_errors.clear()
    source = {"layout": "class folders", "metadata": [], "columns": {}, "unit": "image", "notes": ["a note"]}
    results["run"] |= {"source": source, "malignant": [], "data": "/data/birds"}
    results["run"]["parameters"]["data"] = results["external"]["data"] = "/data/other"
    text = Page(render_html(results, gallery)).text
    for word in ("lesions", "test lesion", "skin", "alignant", "benign", "HAM10000", "excised"):
        assert word not in text
    assert "a note." in text
    assert "images suffices with 2 seeds" in text
    results["run"]["malignant"] = ["species4"]
    text = Page(render_html(results, example_gallery())).text
    assert "Positive images classified as negative" in text
    assert "Positive: species4." in text


# The champion


@pytest.mark.parametrize("few", [False, True])
def test_pages_state_the_comparison_with_the_champion_and_drift(few: bool):
    results = example() | {"champion": example_champion(few)}
    page = Page(render_html(results, NONE))
    start = "Too few test lesions" if few else "The candidate is better than the champion"
    for text in (page.text, render_markdown(results), " ".join(render_text(results).split()), model_card(results)):
        assert start in text
        assert "augmented 50 % of run run-41" in text
        assert "class df: 1.1 % → 2.3 %" in text
    assert ("champion" in page.named) != few
    if not few:
        assert page.named["champion"][1][:2] == ["Candidate", "0.600 0.550 to 0.650"]
        assert page.named["champion"][3][1] == "+0.100 +0.020 to +0.180"
        assert "| Balanced log loss ↓ | 0.900 | 0.800 | +0.100 (+0.020 to +0.180) |" in render_markdown(results)


def test_pages_without_the_option_do_not_mention_a_champion():
    assert "champion" not in render_html(example(), NONE).lower()
    for render in (render_markdown, render_text, model_card):
        assert "champion" not in render(example()).lower()


def test_pages_without_an_earlier_candidate_state_it():
    results = example() | {"champion": {"run": None, "comparison": None, "drift": None}}
    assert "No champion: no earlier run" in Page(render_html(results, NONE)).text
    assert "No champion: no earlier run" in render_markdown(results)


@pytest.mark.parametrize("name", HOSTILE)
def test_pages_escape_the_name_of_the_champion(name: str):
    champion = example_champion()
    champion["run"]["run"] = name
    page = Page(render_html(example() | {"champion": champion}, NONE))
    assert not page.tags & {"script", "img"}
    assert "<script" not in render_markdown(example() | {"champion": champion})
