import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from components.shared.checkpoint import SLOTS, Checkpoints, DamagedError, Folder, pack, unpack
from components.shared.errors import UserError

STATE = {"step": 3, "losses": [[0.1, 1 / 3, 2e-300]], "none": None}
ARRAYS = {
    "weights/0000": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "seed": np.array([1, 2**32 - 1], np.uint32),
    "empty": np.zeros((0, 4), np.uint8),
}


def test_unpack_returns_what_was_packed():
    state, arrays = unpack(pack(STATE, ARRAYS))
    assert state == STATE
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)


def test_unpack_detects_any_changed_byte_or_lost_end():
    data = pack(STATE, ARRAYS)
    rng = np.random.default_rng(0)
    for place in [0, 31, 32, len(data) - 1, *rng.integers(len(data), size=30)]:
        with pytest.raises(DamagedError):
            unpack(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(DamagedError):
            unpack(data[:place])


def checkpoints(folder: Path, **settings: object) -> Checkpoints:
    return Checkpoints(Folder(folder), {"seed": 1} | settings, "train_gan df")


def hashed(content: bytes) -> bytes:
    """Return bytes with a valid hash."""
    return hashlib.sha256(content).digest() + content


def save(kept: Checkpoints, step: int) -> None:
    kept.save({"step": step}, {"weights": np.full(1000, step, np.float32)})


def step_of(kept: Checkpoints) -> int | None:
    found = kept.load()
    if found is None:
        return None
    state, arrays = found
    assert set(arrays["weights"]) == {state["step"]}
    return state["step"]


def test_load_returns_the_newest_of_the_last_two(tmp_path: Path):
    assert step_of(checkpoints(tmp_path)) is None
    kept = checkpoints(tmp_path)
    for step in (5, 6, 2):  # after a rollback the newest is not the one with the most steps
        save(kept, step)
        assert step_of(checkpoints(tmp_path)) == step
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(SLOTS)
    again = checkpoints(tmp_path)
    assert step_of(again) == 2
    save(again, 3)
    assert step_of(checkpoints(tmp_path)) == 3
    for slot in SLOTS:
        assert unpack((tmp_path / slot).read_bytes())[0]["state"]["step"] in (2, 3)


@pytest.mark.parametrize(
    "damage",
    [
        "truncated",
        "garbage",
        "empty",
        "missing member",
        "not our state",
        "a list",
        "a pickle",
        "a broken zip",
        "nothing",
    ],
)
def test_load_with_a_damaged_newest_returns_the_previous_one(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
):
    kept = checkpoints(tmp_path)
    save(kept, 1)
    save(kept, 2)
    newest = next(path for path in tmp_path.iterdir() if unpack(path.read_bytes())[0]["state"]["step"] == 2)
    data = newest.read_bytes()
    newest.write_bytes(
        {
            "truncated": data[: len(data) // 2],
            "garbage": np.random.default_rng(0).bytes(5000),
            "empty": b"",
            "missing member": pack({"settings": kept.settings, "state": {}}, {}),
            "not our state": pack({}, {"weights": np.zeros(3)}),
            "a list": pack([kept.settings], {}),  # type: ignore[arg-type]
            "a pickle": hashed(pickle.dumps({"state": 1})),
            "a broken zip": hashed(b"PK\x03\x04" + bytes(100)),
            "nothing": hashed(b""),
        }[damage]
    )
    again = checkpoints(tmp_path)
    assert step_of(again) == 1
    assert f"warning: {newest.name} is damaged" in capsys.readouterr().out
    save(again, 7)
    assert step_of(checkpoints(tmp_path)) == 7
    assert unpack(newest.read_bytes())[0]["state"]["step"] == 7  # the whole one was not the one overwritten


def test_load_with_both_damaged_returns_none(tmp_path: Path):
    for step in (1, 2):
        save(checkpoints(tmp_path), step)
    for slot in SLOTS:
        (tmp_path / slot).write_bytes(b"x" * 100)
    assert step_of(checkpoints(tmp_path)) is None


def test_load_with_other_settings_in_the_cache_starts_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Regression: a local run of a bucket that had changed since its interruption failed each time."""
    for step in (1, 2, 3):
        save(checkpoints(tmp_path), step)
    after = checkpoints(tmp_path, seed=2)
    assert step_of(after) is None
    assert "train_gan df: starting again: the checkpoints are of other data or settings" in capsys.readouterr().out
    for step in (4, 5, 6):
        save(after, step)
        assert step_of(checkpoints(tmp_path, seed=2)) == step
    assert "starting again" not in capsys.readouterr().out


def test_load_with_other_settings_elsewhere_fails_and_keeps_the_checkpoint(tmp_path: Path):
    class Elsewhere:
        """A folder that is not the cache of a local run, as an address is not."""

        def __init__(self, folder: Folder) -> None:
            self.write, self.read, self.place = folder.write, folder.read, "gs://bucket/run"

    save(checkpoints(tmp_path), 1)
    with pytest.raises(UserError) as caught:
        Checkpoints(Elsewhere(Folder(tmp_path)), {"seed": 2}, "train_gan df").load()
    assert (caught.value.code, caught.value.fields["place"]) == ("checkpoints.other_settings", "gs://bucket/run")
    assert "gs://bucket/run" in str(caught.value)
    assert step_of(checkpoints(tmp_path)) == 1


def test_save_last_removes_the_content_of_the_checkpoint_before_it(tmp_path: Path):
    for step in (1, 2):
        save(checkpoints(tmp_path), step)
    kept = checkpoints(tmp_path)
    kept.load()
    kept.save_last({"step": 3}, {"weights": np.full(1000, 3, np.float32)})
    assert step_of(checkpoints(tmp_path)) == 3
    assert min((tmp_path / slot).stat().st_size for slot in SLOTS) < 1000
    (tmp_path / SLOTS[kept._number % 2]).unlink()
    assert step_of(checkpoints(tmp_path)) is None


def test_folder_removes_partial_files(tmp_path: Path):
    (tmp_path / ".part-abc").write_bytes(b"half")
    Folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_pack_is_json_and_npz():
    import io

    content = pack(STATE, ARRAYS)[32:]
    with np.load(io.BytesIO(content)) as file:
        assert json.loads(file["state"].tobytes()) == STATE
