"""The data profile: correct counts, training images, one self-contained file."""

import base64
import re
from html.parser import HTMLParser

import pytest

from components.shared.image_set import decode_png, pixel_sha256


class Cells(HTMLParser):
    """Collect the text of the table cells, and the attributes that load resources."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.loaded, self.cell = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.cell = True
        self.loaded += [value for name, value in attrs if name in ("src", "href", "action")]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cell = None

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


@pytest.fixture
def page(raw, run):
    raw.rows[0]["age"] = ""
    raw.rows[1]["age"] = "unknown"
    raw.rows[2]["localization"] = ""
    done = run(raw.write().path)
    return raw, done, Cells(done.profile)


def test_profile_shows_the_class_distribution(page):
    raw, done, cells = page
    rows = done.rows()
    start = next(number for number, row in enumerate(cells.rows) if row[:1] == ["class"])
    header = cells.rows[start]
    assert header == ["class", "images", "lesions", "", "train", "validation", "test"]
    of_class = {row[0]: row[1:] for row in cells.rows[start + 1 : start + 4]}
    assert list(of_class) == ["nv", "mel", "df"]  # the largest first
    for dx, (images, lesions, _, *parts) in of_class.items():
        mine = rows[rows["dx"] == dx]
        assert int(images) == len(mine) == len(raw.of(dx))
        assert int(lesions) == mine["lesion_id"].nunique()
        assert [int(part) for part in parts] == [
            int((mine["split"] == s).sum()) for s in ("train", "validation", "test")
        ]
    assert len(re.findall('<tr class="rare">', done.profile)) == 2


def test_profile_samples_are_training_images_of_their_class(page):
    _, done, _ = page
    hashes = {}
    for dx, png in re.findall(r'training image of class (\w+)"\s+src="data:image/png;base64,([^"]+)"', done.profile):
        hashes.setdefault(dx, []).append(pixel_sha256(decode_png(base64.b64decode(png))))
    rows = done.rows()
    for dx in ("df", "mel", "nv"):
        train = rows[(rows["dx"] == dx) & (rows["split"] == "train")]
        assert 1 <= len(hashes[dx]) == min(6, len(train))
        assert set(hashes[dx]) <= set(train["pixel_sha256"])


def test_profile_counts_missing_values_and_sizes(page):
    raw, _, cells = page
    of_column = {row[0]: row[1:] for row in cells.rows}
    ages = sorted(int(row["age"]) for row in raw.rows[2:])
    median = (ages[(len(ages) - 1) // 2] + ages[len(ages) // 2]) / 2
    assert of_column["age"] == ["2", f"median {median:.0f}, {ages[0]} to {ages[-1]} years"]
    assert of_column["localization"] == ["1", f"back {len(raw.rows) - 1}"]
    assert of_column["dx_type"] == ["0", f"histo {len(raw.rows)}"]
    assert of_column["40 × 30 px"] == [str(len(raw.rows))]


def test_profile_loads_no_external_resources(page):
    _, done, cells = page
    assert cells.loaded
    assert all(value.startswith("data:image/png;base64,") for value in cells.loaded)
    assert "url(" not in done.profile
    assert "<script" not in done.profile
    assert "<li>0 skipped</li>" in done.profile


def test_profile_with_many_sizes_counts_them(raw, run):
    for index in range(7):
        raw.draw(index, raw.rows[index]["dx"], (50 + index, 40)).save(raw.image(index))
    done = run(raw.path)
    assert "The five most common of 8 sizes." in done.profile


def test_profile_without_optional_columns_shows_them_as_missing(raw, run):
    lines = ["image_id,lesion_id,dx", *(f"{r['image_id']},{r['lesion_id']},{r['dx']}" for r in raw.rows)]
    raw.metadata.write_text("\n".join(lines))
    of_column = {row[0]: row[1:] for row in Cells(run(raw.path).profile).rows}
    for column in ("age", "sex", "localization", "dx_type"):
        assert of_column[column] == [str(len(raw.rows)), "–"]


def test_profile_shortens_long_values(raw, run):
    raw.rows[0]["localization"] = "x" * 100_000
    assert "x" * 100 not in run(raw.write().path).profile


def test_profile_reports_an_image_of_two_lesions_in_one_split(raw, run, capfd):
    rows = raw.rows
    train = list(run(raw.path).rows().query("split == 'train' and dx == 'nv'").drop_duplicates("lesion_id")["image_id"])
    one, other = (next(i for i, row in enumerate(rows) if row["image_id"] == name) for name in train[:2])
    raw.image(other).write_bytes(raw.image(one).read_bytes())
    assert "2 are pixel-identical to another lesion" in run(raw.path).profile
    assert "2 images are pixel-identical to another lesion's image in the same split" in capfd.readouterr().out


def test_profile_reports_an_image_of_two_classes(raw, run, capfd):
    train = run(raw.path).rows().query("split == 'train'").groupby("dx")["image_id"].first()
    one, other = (next(i for i, row in enumerate(raw.rows) if row["image_id"] == train[dx]) for dx in ("nv", "df"))
    assert "of another class" not in run(raw.path).profile
    raw.image(other).write_bytes(raw.image(one).read_bytes())
    assert "2 are pixel-identical to an image of another class" in run(raw.path).profile
    assert "2 images are pixel-identical to an image of another class; check their labels" in capfd.readouterr().out


def test_profile_describes_the_split(raw, run, tmp_path):
    assert "The split is random, by lesion:" in run(raw.path).profile
    assert "The split is fold 2/3, by" in run(raw.path, split="2/3").profile
    given = tmp_path / "<b>.csv"
    given.write_bytes((tmp_path / "out" / "test_data" / "splits.csv").read_bytes())
    profile = run(raw.path, out="given", split=str(given)).profile
    assert "The split is given by <code>" in profile
    assert "/&lt;b&gt;.csv</code>" in profile
