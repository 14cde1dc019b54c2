"""The report: right numbers in the right cells, self-contained, same bytes, deaf to hostile names."""

import base64
import copy
import io
import math
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from components.evaluate.report import render_html, render_markdown, render_text

CLASSES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
METRIC = "mean recall of the rare classes"
RARE = ["akiec", "df", "vasc"]
IMAGES = dict(zip(CLASSES, (327, 514, 1099, 115, 1113, 6705, 142), strict=True))
LESIONS = dict(zip(CLASSES, (228, 327, 727, 73, 614, 5403, 98), strict=True))
TEST = dict(zip(CLASSES, ((49, 34), (77, 49), (165, 109), (17, 11), (167, 92), (1006, 810), (21, 15)), strict=True))
HITS = {  # test images named right
    "baseline": (24, 53, 108, 7, 84, 954, 16),
    "oversampled": (28, 55, 106, 10, 91, 931, 17),
    "augmented": (29, 54, 109, 9, 88, 936, 17),
}
CONFUSED_WITH = (1, 0, 4, 5, 5, 4, 1)  # the class that gets most of a class's errors


def _confusion(hits: tuple[int, ...]) -> list[list[int]]:
    rows = []
    for true, name in enumerate(CLASSES):
        wrong = TEST[name][0] - hits[true]
        row = [wrong // 12 if column != true else 0 for column in range(len(CLASSES))]
        row[CONFUSED_WITH[true]] += wrong - sum(row)
        row[true] += hits[true]
        rows.append(row)
    return rows


def _arm(name: str, index: int) -> dict[str, Any]:
    confusion = np.array(_confusion(HITS[name]))
    right, support, said = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    recall, precision = right / support, right / said
    half = 1.96 * np.sqrt(recall * (1 - recall) / np.array([TEST[c][1] for c in CLASSES]))
    epochs = 38 + 3 * index
    decay = np.exp(-np.arange(epochs) / (9 - index))
    wobble = 0.012 * np.sin(np.arange(epochs) * (2.1 + index))
    return {
        "accuracy": float(right.sum() / support.sum()),
        "balanced_accuracy": float(recall.mean()),
        "macro_auc": (0.9412, 0.9447, 0.9439)[index],
        "recall": dict(zip(CLASSES, recall.tolist(), strict=True)),
        "precision": dict(zip(CLASSES, precision.tolist(), strict=True)),
        "f1": dict(zip(CLASSES, (2 * recall * precision / (recall + precision)).tolist(), strict=True)),
        "auc": {c: 0.9 + 0.08 * math.sin(7 * i + index) ** 2 for i, c in enumerate(CLASSES)},
        "support": {c: TEST[c][0] for c in CLASSES},
        "confusion": confusion.tolist(),
        "recall_interval": {
            c: [max(0.0, r - h), min(1.0, r + h)]
            for c, r, h in zip(CLASSES, recall.tolist(), half.tolist(), strict=True)
        },
        "train_rows": (7010, 9214, 9214)[index],
        "best_epoch": 28 + 3 * index,
        "epochs": epochs,
        "history": {
            "loss": (0.18 + 1.4 * decay).tolist(),
            "val_loss": (0.58 + 0.9 * decay + 0.006 * np.arange(epochs) * (1 - decay) + wobble).tolist(),
            "val_balanced_accuracy": (0.66 + 0.02 * index - 0.5 * decay + wobble).tolist(),
        },
    }


def example() -> dict[str, Any]:
    """Results as HAM10000 may give them: the GAN's effect is small beside its interval."""

    def split(share: float) -> dict[str, dict[str, int]]:
        return {c: {"images": round(IMAGES[c] * share), "lesions": round(LESIONS[c] * share)} for c in CLASSES}

    return {
        "run": {
            "name": "ham10000-2025-06",
            "data": "gs://skin-data/ham10000",
            "data_sha256": "3f" * 32,
            "split_sha256": "a7" * 32,
            "seed": 7,
            "image_size": 128,
            "rare_classes": RARE,
            "settings": {
                "classifier": "efficientnetv2-b0",
                "learning_rate": 0.0003,
                "fractions": [0.7, 0.15, 0.15],
            },
            "versions": {"python": "3.11.9", "keras": "3.11.2", "tensorflow": "2.20.0"},
        },
        "classes": CLASSES,
        "splits": {
            "train": split(0.7),
            "validation": split(0.15),
            "test": {c: {"images": n, "lesions": m} for c, (n, m) in TEST.items()},
        },
        "arms": {name: _arm(name, index) for index, name in enumerate(HITS)},
        "synthetic": {
            c: {"images": 735 - 40 * i, "architecture": "dcgan", "kimg": 400.0, "model_sha256": f"{i}b" * 32}
            for i, c in enumerate(RARE)
        },
        "effect": {
            "metric": METRIC,
            "mcnemar": {"lesions_gained": 1, "lesions_lost": 4, "p": 0.375},
            "augmented_minus_oversampled": {"value": -0.0128, "low": -0.0921, "high": 0.0694},
            "augmented_minus_baseline": {"value": 0.0891, "low": 0.0113, "high": 0.1702},
            "draws": 2000,
        },
        "verdict": "no evidence",
    }


def _png(seed: int, size: int = 128, noise: float = 5.0) -> bytes:
    """A dark spot on skin: about as hard to compress as a photograph."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angle, edge = np.arctan2(y, x), 0.45 + 0.1 * random.random()
    edge = edge + sum(0.06 * random.standard_normal() * np.cos(k * angle + 6 * random.random()) for k in range(2, 6))
    spot = 1 / (1 + np.exp((np.hypot(x - 0.1, y) - edge) * 14))
    skin, dark = np.array([226, 186, 172]), np.array([120, 72, 58]) + random.normal(0, 14, 3)
    pixels = skin + (dark - skin) * spot[..., None] + random.normal(0, noise, (size, size, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def example_pictures(count: int = 8, classes: list[str] = CLASSES) -> dict[str, dict[str, list[bytes]]]:
    """Real pictures of every class, synthetic ones of the rare."""
    return {
        c: {"real": [_png(100 * i + k) for k in range(count)]}
        | ({"synthetic": [_png(100 * i + k + 50, noise=2.0) for k in range(count)]} if c in RARE else {})
        for i, c in enumerate(classes)
    }


class Page(HTMLParser):
    """What a browser would see: tables by id as rows of cell texts, ids, attributes, tags, all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.named: dict[str, list[list[str]]] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: set[str] = set()
        self.text = ""
        self._cell = False
        self.feed(page)

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


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render_html(example(), example_pictures(2)))


def test_the_verdict_comes_first_and_names_effect_and_interval(page: Page) -> None:
    sentence = (
        f"No evidence that the synthetic images helped: {METRIC} was 0.013 lower with them than with real "
        "images repeated (95 % interval −0.092 to +0.069, which includes zero)."
    )
    assert page.text.index(sentence) < page.text.index("Comparison")
    assert page.named["effect"][1:] == [
        ["GAN effect augmented − oversampled", "−0.013", "−0.092 to +0.069", ""],
        ["Improvement augmented − baseline; includes rebalancing", "+0.089", "+0.011 to +0.170", ""],
    ]


@pytest.mark.parametrize(
    ("verdict", "value", "low", "high", "sentence"),
    [
        ("improved", 0.05, 0.01, 0.09, f"The synthetic images helped: {METRIC} was 0.050 higher with them "
         "than with real images repeated (95 % interval +0.010 to +0.090)."),
        ("worse", -0.05, -0.09, -0.01, f"The synthetic images made it worse: {METRIC} was 0.050 lower with "
         "them than with real images repeated (95 % interval −0.090 to −0.010)."),
        ("no evidence", -0.0001, -0.02, 0.02, f"No evidence that the synthetic images helped: {METRIC} was "
         "the same with them as with real images repeated (95 % interval −0.020 to +0.020, which includes "
         "zero)."),
        ("no evidence", None, None, None, f"No evidence that the synthetic images helped: {METRIC} can't "
         "be compared on these test images."),
    ],
)  # fmt: skip
def test_good_and_bad_verdicts_read_alike(
    verdict: str, value: float | None, low: float | None, high: float | None, sentence: str
) -> None:
    results = example() | {"verdict": verdict}
    results["effect"]["augmented_minus_oversampled"] = {"value": value, "low": low, "high": high}
    assert sentence in Page(render_html(results, {})).text
    assert sentence.replace("−", "-") in " ".join(render_text(results).split())
    assert render_markdown(results).replace("\\", "").startswith("## " + sentence.replace("'", "&#39;"))


def test_comparison_table(page: Page) -> None:
    assert page.named["comparison"] == [
        ["Class", "Test images", "Test lesions", "● Baseline", "■ Oversampled", "◆ Augmented",
         "Improvement augm. − base.", "GAN effect augm. − overs."],
        ["akiec rare", "49", "34", "0.490", "0.571", "0.592", "+0.102", "+0.020"],
        ["bcc", "77", "49", "0.688", "0.714", "0.701", "+0.013", "−0.013"],
        ["bkl", "165", "109", "0.655", "0.642", "0.661", "+0.006", "+0.018"],
        ["df rare too few lesions to tell", "17", "11", "0.412", "0.588", "0.529", "+0.118", "−0.059"],
        ["mel", "167", "92", "0.503", "0.545", "0.527", "+0.024", "−0.018"],
        ["nv", "1,006", "810", "0.948", "0.925", "0.930", "−0.018", "+0.005"],
        ["vasc rare too few lesions to tell", "21", "15", "0.762", "0.810", "0.810", "+0.048", "0.000"],
        ["Balanced accuracy", "", "", "0.637", "0.685", "0.679", "+0.042", "−0.007"],
        ["Accuracy", "", "", "0.830", "0.824", "0.827", "−0.003", "+0.003"],
        ["Macro AUC", "", "", "0.941", "0.945", "0.944", "+0.003", "−0.001"],
    ]  # fmt: skip


def test_confusion_precision_and_splits_tables(page: Page) -> None:
    results = example()
    assert page.named["confusion"][1] == ["akiec", *map(str, results["arms"]["augmented"]["confusion"][0])]
    metrics = [f"{results['arms'][arm][key]['mel']:.3f}" for key in ("precision", "f1", "auc") for arm in HITS]
    assert page.named["metrics"][6] == ["mel", *metrics]
    assert page.named["splits"][2] == ["akiec", "229", "160", "49", "34", "49", "34"]
    assert page.named["splits"][-1] == ["All", "7,010", "5,230", "1,502", "1,120", "1,502", "1,120"]
    assert page.named["training"][3][1:] == ["9,214", "44", "34"]


def test_markdown_table() -> None:
    text = render_markdown(example())
    assert "| akiec (rare) | 49 | 34 | 0.490 | 0.571 | 0.592 | +0.102 | +0.020 |  |\n| bcc | 77 |" in text
    assert "| df (rare) | 17 | 11 | 0.412 | 0.588 | 0.529 | +0.118 | −0.059 | too few lesions to tell |\n" in text
    assert "| **Macro AUC** | | | 0.941 | 0.945 | 0.944 | +0.003 | −0.001 | |\n" in text
    assert "| GAN effect (augmented − oversampled) | −0.013 | −0.092 to +0.069 |\n" in text
    assert "includes rebalancing | +0.089 | +0.011 to +0.170 |\n" in text
    table = text[text.index("| Class") : text.index("| **Macro")]
    assert {line.count("|") for line in table.strip().splitlines()} == {10}


def test_text_table_fits_a_terminal() -> None:
    lines = render_text(example()).splitlines()
    assert max(map(len, lines)) <= 100
    assert "df *                        17       11     0.412        0.588      0.529       +0.118      -0.059" in lines
    assert lines[-1] == "* fewer than 20 test lesions: too few lesions to tell"
    few = example()
    few["classes"], few["run"]["name"] = ["nv"], "long" * 99
    assert "*" not in render_text(few)


def test_self_contained_and_accessible() -> None:
    html = render_html(example(), example_pictures(2))
    page = Page(html)
    assert not page.tags & {"script", "link", "iframe", "object", "base", "form", "metadata"}
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    for _, name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "srcset", "action"):
            assert value.startswith(("data:image/png;base64,", "data:image/jpeg;base64,", "#"))
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert len(page.values("id")) == len(set(page.values("id")))
    assert {value.removeprefix("#") for value in page.values("xlink:href")} <= set(page.values("id"))
    assert ("html", "lang", "en") in page.attributes
    assert "width=device-width, initial-scale=1" in page.values("content")
    assert "Synthetic df, picture 2 of 2" in page.values("alt")
    assert page.values("role").count("img") == 2
    assert any("akiec 0.490, 0.571, 0.592; bcc" in label for label in page.values("aria-label"))


def test_same_results_same_bytes() -> None:
    pictures = example_pictures(1)
    assert render_html(example(), pictures) == render_html(example(), pictures)


def test_small_enough_with_all_pictures() -> None:
    real = [_png(k, noise=60.0) for k in range(8)]  # harder to compress than any photograph
    html = render_html(example(), {c: {"real": real, "synthetic": real} for c in CLASSES})
    assert len(html.encode()) < 2_000_000
    assert html.count("data:image/jpeg") == 112


def test_small_pictures_stay_lossless() -> None:
    png = _png(1, size=32)
    html = render_html(example(), {"df": {"real": [png]}})
    assert f'src="data:image/png;base64,{base64.b64encode(png).decode()}"' in html


def test_text_on_every_shade_is_readable() -> None:
    results = example()
    results["arms"]["baseline"]["confusion"] = [[n, 100 - n] for n in range(101)]
    results["classes"] = [f"c{n}" for n in range(101)]
    for arm in results["arms"].values():
        arm["confusion"] = results["arms"]["baseline"]["confusion"]

    def luminance(colour: list[int]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    cells = re.findall(r"background: rgb\((\d+), (\d+), (\d+)\); color: (#fff|#000)", render_html(results, {}))
    assert len(cells) == 3 * 101 * 2
    for *background, text in cells:
        low, high = sorted((luminance([int(v) for v in background]), luminance([255 if text == "#fff" else 0] * 3)))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def _renamed(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {_renamed(key, old, new): _renamed(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, old, new) for item in value]
    return new if value == old else value


@pytest.mark.parametrize(
    "name",
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "--!><script>",
        "]]></text><script>",
        "$\\frac{a}{0}$ & {{ 7*7 }}",
        "a|b`c`*d*\n# e",
        "items",
        pytest.param("皮膚" * 40, marks=pytest.mark.filterwarnings("ignore:Glyph")),
    ],
)
def test_hostile_names_are_only_text(name: str) -> None:
    results = _renamed(example(), "df", name)
    for place in ("name", "data", "data_sha256"):
        results["run"][place] = name
    results["run"]["settings"] = {name: name, "list": [name]}
    results["run"]["versions"] = {name: name}
    results["synthetic"][name]["architecture"] = name
    page = Page(render_html(results, {name: {"real": [_png(1, 32)], "synthetic": [_png(2, 32)]}}))
    assert not page.tags & {"script", "x"}
    assert not [attribute for _, attribute, _ in page.attributes if attribute.startswith("on")]
    assert [row[0] for row in page.named["metrics"]].count(" ".join(name.split())) == 1
    assert f"Real {name}, picture 1 of 1" in page.values("alt")
    assert any(f"; {name} 0.412, 0.588, 0.529;" in label for label in page.values("aria-label"))
    markdown = render_markdown(results)
    assert "<" not in markdown
    row = next(line for line in markdown.splitlines() if "| 17 | 11 |" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 10
    assert re.findall(r"(?<!\\)[*`]", row) == []
    assert max(map(len, render_text(results).splitlines())) <= 100


def test_no_escape_sequence_reaches_the_terminal() -> None:
    text = render_text(_renamed(example(), "df", "\x1b[31mdf\x07\r"))
    assert not set(text) & set("\x1b\x07\r")
    assert "[31mdf *" in text


def test_class_without_test_images_or_auc() -> None:
    results = example()
    results["splits"]["test"]["df"] = {"images": 0, "lesions": 0}
    for arm in results["arms"].values():
        arm["support"]["df"], arm["auc"]["df"], arm["recall_interval"]["df"] = 0, None, [None, None]
        arm["recall"]["df"], arm["precision"]["df"], arm["confusion"][3] = 0.0, math.nan, [0] * 7
        arm["auc"]["vasc"], arm["recall"]["vasc"], arm["macro_auc"] = None, None, None
        arm["history"] = {"loss": [None, math.nan], "val_loss": []}
    page = Page(render_html(results, {"df": {"real": [], "synthetic": []}, "nv": {"real": [_png(1, 32)]}}))
    none = ["n/a"] * 5
    assert page.named["comparison"][4] == ["df rare too few lesions to tell", "0", "0", *none]
    assert page.named["comparison"][7][3:] == none
    assert page.named["comparison"][10] == ["Macro AUC", "", "", *none]
    assert page.named["metrics"][5] == ["df", *["n/a"] * 9]
    assert page.named["metrics"][8][-3:] == ["n/a"] * 3
    assert "nan" not in render_text(results)
    assert "nan" not in render_markdown(results)
    assert "No synthetic images of this class." in page.text


def test_a_run_may_have_no_name() -> None:
    results = example()
    del results["run"]["name"]
    assert "<title>Counterweight: no evidence</title>" in render_html(results, {})
    assert "\nData gs://skin-data/ham10000, seed 7." in render_markdown(results)


def test_pictures_may_be_absent() -> None:
    assert "No pictures." in render_html(example(), {})
    html = render_html(example(), {"df": {"real": [_png(1, 32)]}})
    assert html.count("<img") == 1
    assert "No synthetic images of this class." in html


def test_results_are_left_as_they_were() -> None:
    results = example()
    before = copy.deepcopy(results)
    render_html(results, {})
    render_markdown(results)
    render_text(results)
    assert results == before


def test_the_exact_test_stands_beside_the_interval() -> None:
    page = " ".join(render_html(example(), {}).split())
    assert "1 is named right by the augmented arm alone and 4 by the oversampled arm alone" in page
    assert "p&nbsp;=&nbsp;0.375" in page


def test_drawn_pictures_are_called_so() -> None:
    results = example()
    assert "drawn pictures" not in render_html(results, {})
    results["run"]["data"] = "demo"
    page = render_html(results, {})
    assert "drawn pictures" in page
    assert "Vienna" not in page
