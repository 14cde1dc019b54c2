from collections.abc import Callable

import pytest

from components.train_classifier.resume import Resume


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that makes training fail after this number of further epochs; 0 for never."""
    original = Resume.on_epoch_end

    def arrange(epochs: int) -> None:
        count = 0

        def on_epoch_end(self: Resume, epoch: int, logs: dict[str, float] | None = None) -> None:
            nonlocal count
            original(self, epoch, logs)
            count += 1
            if count == epochs:
                raise InterruptedError

        monkeypatch.setattr(Resume, "on_epoch_end", on_epoch_end)

    return arrange
