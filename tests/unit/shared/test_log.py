import pytest

from components.shared.log import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (190, "3 min 10 s"), (3900, "1 h 05 min")]
)
def test_duration(seconds: float, text: str):
    assert duration(seconds) == text


def test_few_lines_and_always_the_last(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    progress = Progress("train_gan df", 12.0, "kimg", 1000, "images")
    for step in range(1, 121):
        now = step  # a tenth of a kimg each second
        progress.update(step / 10, "loss 1.00")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[0] == "counterweight train_gan df: 1.0 of 12.0 kimg, 100 images/s, 1 min 50 s left, loss 1.00"
    assert lines[-1] == "counterweight train_gan df: 12.0 of 12.0 kimg, 100 images/s, loss 1.00"
