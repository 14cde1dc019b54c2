import pytest

from components.shared.log import PREFIX, Progress, ProgressLine, duration, parse_progress


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (190, "3 min 10 s"), (3900, "1 h 05 min")]
)
def test_duration_is_rounded_and_has_two_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_progress_logs_at_the_interval_and_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress("train_gan df", 12.0, "kimg", 1000, "images")
    for step in range(1, 121):
        now = step  # a tenth of a kimg per second
        progress.update(step / 10, "loss 1.00")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0] == "counterweight train_gan df: 1.0 of 12.0 kimg, 100 images/s, 1 min 50 s left, loss 1.00"
    assert lines[-1] == "counterweight train_gan df: 12.0 of 12.0 kimg, 100 images/s, loss 1.00"


def test_progress_of_a_resumed_process_excludes_earlier_work_from_the_rate(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress("train_gan df", 100, "images", before=50)
    now = 10.0
    progress.update(75)
    assert capsys.readouterr().out == "counterweight train_gan df: 75 of 100 images, 2 images/s, 10 s left\n"


@pytest.mark.parametrize(("left", "left_s"), [(42, 42), (190, 190), (3900, 3900)])
def test_parse_progress_returns_what_progress_logged(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, left: int, left_s: int
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress("train_classifier baseline, seed 1", 1000 + left, "images")
    now = 1000.0
    progress.update(1000, "loss 1.041, validation: loss 1.5")
    line = capsys.readouterr().out.rstrip().removeprefix(PREFIX)
    label = "train_classifier baseline, seed 1"
    assert parse_progress(line) == ProgressLine(label, 1000, 1000 + left, "images", 1, "images", left_s, 0)


@pytest.mark.parametrize(
    "text",
    [
        "prepare_data: reading demo",
        "train_gan df: resuming at 1.0 of 3 kimg",
        "evaluate: baseline: 3 models, 161 images",
    ],
)
def test_parse_progress_ignores_other_lines(text: str) -> None:
    assert parse_progress(text) is None


def test_parse_progress_of_the_last_line_has_no_remaining_time() -> None:
    assert parse_progress("train_gan df: 1,200.5 of 1,200.5 kimg, 1,743 images/s") == ProgressLine(
        "train_gan df", 1200.5, 1200.5, "kimg", 1743, "images", None, 1
    )
