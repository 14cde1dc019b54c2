"""`plan`: the split, figures and hashes of the run that follows, from metadata alone; the plan as untrusted input."""

import hashlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from components.placement import placement, plan_text, set_plan
from components.shared.image_set import hash_rows, read_header
from components.shared.records import Plan
from counterweight import estimate, plan
from counterweight.estimate import at_size
from tests.helpers.errors import raises_user_error
from tests.helpers.raw_folders import pattern_image, rows, write_images
from tests.unit.prepare_data.conftest import RawFolder, prepare_into, write_raw


@pytest.fixture(scope="module")
def raw_folder(tmp_path_factory: pytest.TempPathFactory) -> RawFolder:
    """A raw folder that tests only read."""
    return write_raw(tmp_path_factory.mktemp("plan") / "raw")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def make(*words: str) -> tuple[Plan, str]:
    """Run the command, and return the plan and what it printed."""
    out = io.StringIO()
    assert plan.run(list(words), out) == 0
    return plan.read_plan("plan.json")[0], out.getvalue()


@pytest.mark.parametrize("split", ["random", "2/3"])
def test_plan_has_the_split_and_the_numbers_of_the_run(raw_folder: RawFolder, tmp_path: Path, split: str):
    found, printed = make(f"DATA={raw_folder.path}", f"data_split={split}", "PRESET=cpu", "random_seed=4")
    done = prepare_into(tmp_path / "out", raw_folder.path, split=split, seed=4)
    assert found.splits[split] == read_header(done.set("test")).split_sha256
    for (name, dx), of_class in done.rows().groupby(["split", "dx"]):
        size = found.counts[name][dx]
        assert (size.images, size.lesions) == (len(of_class), of_class["lesion_id"].nunique())
    assert found.rare_classes == done.rare == ["df", "mel"]
    assert "layout HAM10000, 34 images of 25 lesions" in printed
    assert found.unit == "lesion"


@pytest.mark.parametrize("layout", ["class folders", "Parquet"])
def test_plan_of_other_layouts_has_the_split_of_the_run(tmp_path: Path, layout: str):
    lines, folder = rows({"nv": 20, "mel": 9, "bcc": 8}), tmp_path / "images"
    if layout == "class folders":
        write_images(folder, lines, name=lambda row: f"{row[2]}/{row[1]}.jpg")
    else:
        folder.mkdir()
        images = []
        for seed in range(len(lines)):
            content = io.BytesIO()
            pattern_image(seed).save(content, "PNG")
            images.append({"bytes": content.getvalue(), "path": f"{lines[seed][1]}.png"})
        table = pd.DataFrame({"image": images, "label": [row[2] for row in lines]})
        table.to_parquet(folder / "train.parquet", index=False)
    found, printed = make(f"DATA={folder}")
    done = prepare_into(tmp_path / "out", folder)
    assert found.layout == layout
    assert found.unit == "image"
    assert found.splits["random"] == read_header(done.set("test")).split_sha256
    assert found.images_sha256 == hash_rows(done.rows(), ["image_id", "lesion_id", "dx"])
    assert f"layout {layout}, 37 images\n" in printed
    assert "images; detectable: " in printed
    assert re.search(r"^nv +\d+ +\d+ +\d+ +(none|0\.\d\d)$", printed, re.MULTILINE)


def test_plan_of_data_with_its_own_split_notes_that_it_is_used(tmp_path: Path):
    lines, folder = rows({"nv": 12, "mel": 12}), tmp_path / "images"
    write_images(folder, lines, name=lambda row: f"{('train', 'test')[int(row[1][-1]) % 2]}/{row[2]}/{row[1]}.jpg")
    note = "note: the data states a split, which "
    assert f"{note}is used; set data_split" in make(f"DATA={folder}")[1]
    (tmp_path / "plan.json").unlink()
    assert f"{note}data_split replaces\n" in make(f"DATA={folder}", "data_split=1/3")[1]


def test_plan_of_a_fold_is_that_of_all_folds(raw_folder: RawFolder):
    found, printed = make(f"DATA={raw_folder.path}", "data_split=2/3")
    assert list(found.splits) == ["1/3", "2/3", "3/3"]
    assert len(set(found.splits.values())) == 3
    assert found.folds == 3
    assert {dx: it.lesions for dx, it in found.by_class.items()} == {"df": 6, "mel": 7, "nv": 12}
    assert "in 3 pooled folds" in printed
    assert "for each fold" in printed


def test_plan_opens_no_image(raw_folder: RawFolder, tmp_path: Path):
    for path in write_raw(tmp_path / "damaged").path.rglob("*.jpg"):
        path.write_bytes(b"")
    first = make(f"DATA={raw_folder.path}")[0]
    (tmp_path / "plan.json").unlink()
    second = make(f"DATA={tmp_path / 'damaged'}")[0]
    assert (first.images_sha256, first.splits) == (second.images_sha256, second.splits)


def test_plan_of_the_demo_data_has_the_demo_classes():
    found, printed = make("DATA=demo")
    assert sum(size.images for of_split in found.counts.values() for size in of_split.values()) == 1032
    assert found.rare_classes == ["df", "vasc"]
    assert found.settings["classifier_seeds"] == "1, 2, 3"
    assert "output" not in found.settings
    assert "suggested preset: demo" in printed


def test_plan_time_is_near_that_of_a_measured_run():
    """The demo run of the README took 4 min 05 s on the machine of the rates."""
    phases = make("DATA=demo")[0].phases
    assert sum(phase.seconds for phase in phases.values()) == pytest.approx(245, rel=0.3)
    assert phases["train_classifier"].tasks == 2
    assert phases["train_classifier"].cost is None


def test_plan_without_synthetic_images_has_no_gan(tmp_path: Path):
    with_gans = make("DATA=demo", "arms=baseline,oversampled,augmented", "synthetic_shares=0.5,1")[0]
    (tmp_path / "plan.json").unlink()
    found, printed = make("DATA=demo", "arms=baseline,oversampled,class_weights")
    assert list(found.phases) == ["prepare_data", "train_features", "train_classifier", "evaluate"]
    assert found.primary_metric == "mean recall of the rare classes: chosen remedy - baseline"
    assert "(chosen remedy - baseline), corrected for the number of remedies, excludes zero" in found.decision_rule
    assert found.detectable == with_gans.detectable  # two remedies, or two shares, to choose from
    assert ": 9 classifiers on " in printed
    assert "GAN" not in printed
    assert "GPU" not in printed.replace("24 GiB, no GPU", "")


def test_plan_costs_follow_the_prices_of_the_placement_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    text = Path(plan.__file__).parent.parent.joinpath("manifests/placement.yaml").read_text(encoding="utf-8")
    prices = "prices: {cpu: 1, memory_gib: 0, accelerator: 2, currency: EUR}"
    (tmp_path / "p.yaml").write_text(re.sub(r"^prices:.*$", prices, text, flags=re.MULTILINE), encoding="utf-8")
    monkeypatch.setenv("PLACEMENT", "")
    try:
        found, printed = make("DATA=demo", f"PLACEMENT={tmp_path / 'p.yaml'}")
    finally:
        monkeypatch.undo()
        placement.cache_clear()
    gan = found.phases["train_gan"]
    assert gan.cost == pytest.approx(gan.seconds / 3600 * (4 * 1 + 2), abs=0.006)  # 4 CPUs and an accelerator
    assert "EUR by the prices" in printed


def test_plan_time_grows_with_seeds_and_pixels(raw_folder: RawFolder, tmp_path: Path):
    times = []
    for words in ((), ("classifier_seeds=1,2,3,4,5,6",), ("data_image_size=128",)):
        found = make(f"DATA={raw_folder.path}", *words)[0]
        times.append(found.phases["train_classifier"].seconds - 6 * found.phases["train_classifier"].tasks)
        (tmp_path / "plan.json").unlink()
    assert times[1] == pytest.approx(2 * times[0], abs=0.2)
    assert times[2] == pytest.approx(times[0] * 596 / 130, rel=0.01)


def test_plan_time_includes_the_gans_and_images_that_options_add():
    """Seven classes instead of two have synthetic images, which are selected from 3 instead of 1.25 times as many."""
    words = ("DATA=demo", "synthetic_per_class=20000", "synthetic_shares=0.5")
    plans = [make(*words)[0]]
    Path("plan.json").unlink()
    options = {"synthetic_scope": "all", "synthetic_selection": "label"}
    plans.append(make(*words, *(f"{name}={value}" for name, value in options.items()))[0])
    gans, generated = ([it.phases[name] for it in plans] for name in ("train_gan", "generate_images"))
    assert [phase.tasks for phase in gans] == [phase.tasks for phase in generated] == [1, 4]
    start_s = estimate.rates().start_s
    seconds = [phase.seconds - start_s * phase.tasks for phase in generated]
    assert seconds[1] == pytest.approx(seconds[0] * 7 * 3 / (2 * 1.25), rel=0.02)
    assert {name: plans[1].settings[name] for name in options} == options


def test_plan_of_more_rare_classes_than_tasks_has_several_classes_in_each(tmp_path: Path):
    lines, folder = rows({f"c{n:02}": 6 + (n == 0) for n in range(23)}), tmp_path / "images"
    write_images(folder, lines, name=lambda row: f"{row[2]}/{row[1]}.jpg")
    found = make(f"DATA={folder}", "gans_per_task=1", "synthetic_shares=1")[0]
    assert len(found.rare_classes) == 22
    assert [found.phases[name].tasks for name in ("train_gan", "generate_images")] == [11, 11]


def test_plan_that_only_other_presets_make_too_large_is_written(raw_folder: RawFolder):
    seeds = ",".join(map(str, range(15)))
    found, printed = make(f"DATA={raw_folder.path}", "PRESET=demo", f"classifier_seeds={seeds}")
    assert len(found.seeds) == 15
    assert "suggested preset: cpu, too large (90 classifiers" in printed


def test_at_size_between_and_beyond_the_measured_sizes_is_a_power_law():
    assert at_size({32: 400, 128: 25}, 64) == pytest.approx(100)
    assert at_size({64: 100, 128: 25}, 256) == pytest.approx(6.25)
    assert at_size({32: 100}, 64) == pytest.approx(25)
    assert estimate.rates().images_per_s["classifier"][64] == 596


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["DATA=kaggle"], "plan.kaggle"),
        (["DATA=/nowhere"], "run.missing_path"),
        (["DATA=demo", "synthetic_classes=zzz"], "parameter.unknown_class"),
        (["DATA=demo", "positive_classes=zzz"], "parameter.unknown_class"),
        (["DATA=demo", "data_split=/nowhere.csv"], "run.missing_path"),
        (["DATA=demo", "data_image_size=50"], "parameter.invalid"),
        (["DATA=demo", "colour=red"], "parameter.unknown"),
        (
            ["DATA=demo", "classifier_seeds=" + ",".join(map(str, range(20))), "arms=all"],
            "workflow.too_many_classifiers",
        ),
        (["DATA=demo", "synthetic_scope=all", "synthetic_shares=1"], "arms.no_real_images"),
        (["DATA=demo", "arms=baseline,class_weights", "synthetic=gs://bucket/prefix"], "arms.unused_source"),
        (["DATA=demo", "OUT=/proc/plan.json"], "run.not_writable"),
        (["DATA=demo", "OUT=."], "plan.exists"),
        (["DATA=demo", "OUT=gs://bucket/plan.json"], "option.invalid"),
        (["DATA=demo", "OUT=a\0b"], "option.invalid"),
        (["DATA=gs://"], "parameter.invalid"),
    ],
)
def test_plan_invalid_input_is_a_user_error_and_writes_nothing(words: list[str], code: str, tmp_path: Path):
    with raises_user_error(code):
        plan.run(words, io.StringIO())
    assert list(tmp_path.iterdir()) == []


def test_plan_command_that_it_prints_runs_what_was_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in ("plan.json", "~/other plans/plan.json"):
        out = io.StringIO()
        assert plan.run(["DATA=demo", f"OUT={place}", "arms=baseline,oversampled"], out) == 0
        _, command = out.getvalue().splitlines()[-1].split(": ")
        make, target, cited, *given = shlex.split(command)
        assert (make, target, given) == ("make", "run", ["DATA=demo", "arms=baseline,oversampled"])
        written = cited.removeprefix("PLAN=")
        assert (written == "plan.json") == (place == "plan.json")
        assert plan.read_plan(written) == plan.read_plan(place)


def test_plan_that_exists_is_not_replaced_and_the_new_one_is_printed(tmp_path: Path):
    make("DATA=demo")
    kept, out = (tmp_path / "plan.json").read_text(), io.StringIO()
    (tmp_path / "plan2.json").touch()
    with raises_user_error("plan.exists", path=str(tmp_path / "plan.json")) as caught:
        plan.run(["DATA=demo", "classifier_seeds=1"], out)
    assert caught.value.hint.endswith(" OUT=plan3.json")
    assert "no effect can be established with 1 seed\n" in out.getvalue()
    assert (tmp_path / "plan.json").read_text() == kept
    (tmp_path / "plan.json").write_text("mine")
    with raises_user_error("plan.exists"):
        plan.run(["DATA=demo"], out)
    assert (tmp_path / "plan.json").read_text() == "mine"


def test_plan_that_exists_and_is_the_same_is_kept_with_its_time(tmp_path: Path):
    content = json.loads(make("DATA=demo")[0].model_dump_json()) | {"created": "2026-01-01 10:00 UTC"}
    (tmp_path / "plan.json").write_text(json.dumps(content))
    found, printed = make("DATA=demo")
    assert found.created == "2026-01-01 10:00 UTC"
    assert "plan.json (unchanged), SHA-256 " in printed


# The plan as input of a run


def test_read_plan_returns_what_was_written_and_the_text(tmp_path: Path):
    found, printed = make("DATA=demo")
    text = (tmp_path / "plan.json").read_text()
    assert plan.read_plan("plan.json") == (found, text)
    assert hashlib.sha256(text.encode()).hexdigest() in printed


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda it: it.update(settings=it["settings"] | {"gan_kimg": 99.0}), "plan.changed"),
        (lambda it: it.update(created="yesterday"), "plan.invalid"),
        (lambda it: it.update(created="2026-01-01 10:00 UTC<script>"), "plan.invalid"),
        (lambda it: it.update(arms=["../x"]), "plan.invalid"),
        (lambda it: it.update(rare_classes=["a b"]), "plan.invalid"),
        (lambda it: it.update(alpha=float("nan")), "plan.invalid"),
        (lambda it: it.pop("splits"), "plan.invalid"),
        (lambda it: it.update(notes="x"), "plan.invalid"),
    ],
)
def test_read_plan_changed_file_is_refused(change: Any, code: str, tmp_path: Path):
    make("DATA=demo")
    content = json.loads((tmp_path / "plan.json").read_text())
    change(content)
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with raises_user_error(code):
        plan.read_plan("plan.json")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (None, "plan.unreadable"),
        (b"", "plan.unreadable"),
        (b"\xff\xfe", "plan.unreadable"),
        (b"{" * 5_000, "plan.invalid"),
        (b"[]", "plan.invalid"),
        (b" " * (plan.MAX_PLAN_BYTES + 1), "plan.too_large"),
    ],
)
def test_read_plan_other_file_is_refused(content: bytes | None, code: str, tmp_path: Path):
    if content is not None:
        (tmp_path / "plan.json").write_bytes(content)
    with raises_user_error(code):
        plan.read_plan("plan.json")


def test_read_plan_of_a_folder_or_pipe_is_refused(tmp_path: Path):
    for place in (str(tmp_path), "/dev/zero", "\0"):
        with raises_user_error("plan.unreadable"):
            plan.read_plan(place)


def test_take_plan_is_cited_and_deviations_are_announced():
    make("DATA=demo")
    given = {"PLAN": "plan.json", "DATA": "demo"}
    try:
        found = plan.take_plan(given)
        assert plan_text() == Path("plan.json").read_text()
    finally:
        set_plan("")
    assert given == {"DATA": "demo"}
    assert found is not None
    _, values, _ = plan.arguments({"data": "demo", "gan_kimg": "7", "classifier_seeds": "1,2"}, plan.defaults())
    assert list(plan.announce(found, values)) == [
        f"planned on {found.created}",
        "warning: deviates from the plan: gan_kimg is 7.0, planned 6.0",
        "warning: deviates from the plan: the seeds of the classifiers are 1, 2, planned 1, 2, 3",
    ]
    assert plan.take_plan({"DATA": "demo"}) is None
