"""State files: whole or refused, whatever happens while they are written or afterwards."""

from __future__ import annotations

import os
import pickle
import random
import resource
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from healmap.errors import CheckpointError, WriteError
from healmap.io import atomic
from healmap.training import checkpoint


def state(number: int) -> dict:
    return {"number": number, "tensor": torch.full((1000,), float(number)), "list": [1, "a", None, 2.5, True]}


def numbers(folder: Path) -> int:
    loaded = checkpoint.load(folder)
    assert torch.equal(loaded["tensor"], torch.full((1000,), float(loaded["number"])))
    return loaded["number"]


def test_two_are_kept_with_their_hashes(tmp_path: Path) -> None:
    for number in range(3):
        checkpoint.save(tmp_path, state(number))
    assert numbers(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "state.previous.pt", "state.previous.sha256", "state.pt", "state.sha256"]  # fmt: skip
    checked = subprocess.run(["sha256sum", "-c", "state.sha256", "state.previous.sha256"], cwd=tmp_path, capture_output=True)
    assert checked.returncode == 0
    (tmp_path / "state.pt").unlink()
    with pytest.warns(RuntimeWarning, match="missing"):
        assert numbers(tmp_path) == 1


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_no_damage_goes_unseen(tmp_path: Path) -> None:
    for number in range(2):
        checkpoint.save(tmp_path, state(number))
    sound, chance = (tmp_path / "state.pt").read_bytes(), random.Random(0)
    for case in range(200):
        damaged = bytearray(sound)
        place = chance.randrange(len(sound))
        if case % 2:
            damaged[place] ^= 1 << chance.randrange(8)
        else:
            del damaged[place:]
        (tmp_path / "state.pt").write_bytes(damaged)
        assert numbers(tmp_path) == 0
    (tmp_path / "state.previous.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no usable checkpoint"):
        checkpoint.load(tmp_path)


def test_killed_inside_the_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process dies before each single act of writing in turn: whatever is left can be resumed from."""
    for number in range(2):
        checkpoint.save(tmp_path, state(number))
    left = []
    for moment in range(100):
        child = os.fork()
        if not child:
            acts = [0]

            def dying(act: object, acts: list[int] = acts, moment: int = moment) -> object:
                def wrapped(*arguments: object, **options: object) -> object:
                    if acts[0] == moment:
                        os.kill(os.getpid(), signal.SIGKILL)
                    acts[0] += 1
                    return act(*arguments, **options)  # type: ignore[operator]

                return wrapped

            for name in ("replace", "fsync"):
                setattr(os, name, dying(getattr(os, name)))
            checkpoint._HashingSink.write = dying(checkpoint._HashingSink.write)  # type: ignore[method-assign, assignment]
            try:
                checkpoint.save(tmp_path, state(numbers(tmp_path) + 1))
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        with pytest.warns(RuntimeWarning) if not (tmp_path / "state.pt").exists() else _nothing():
            left.append(numbers(tmp_path))
        atomic.remove_stale(tmp_path)
        if not status:
            break
    else:
        pytest.fail("the save never came to its end")
    assert len(left) > 12
    assert all(0 <= b - a <= 1 for a, b in zip([1, *left], left, strict=False)), "a state was lost"


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize("offset", [0, 1, 64, 500, 1000, 2000, 3000, 4000, 4500, 5000])
def test_disk_full_at_any_offset(tmp_path: Path, offset: int) -> None:
    for number in range(2):
        checkpoint.save(tmp_path, state(number))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (offset, limits[1]))
    try:
        with pytest.raises(WriteError) as caught:
            checkpoint.save(tmp_path, state(2))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(tmp_path / "state.pt") in str(caught.value)
    assert "4,0" in str(caught.value), "the bytes needed: 1000 floats and a little"
    assert numbers(tmp_path) == 1
    assert not list(tmp_path.glob(".healmap-part-*"))
    checkpoint.save(tmp_path, state(2))
    assert numbers(tmp_path) == 2


class _Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.canary}",)


def test_pickled_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    canary, path = tmp_path / "canary", tmp_path / "state.pt"
    torch.save({"format": "healmap-state", "version": 1, "x": _Payload(canary)}, path)
    zipped = path.read_bytes()
    for raw in (zipped, pickle.dumps(_Payload(canary)), b"\x80\x02garbage", b""):
        path.write_bytes(raw)
        checkpoint._record(path, [checkpoint.sha256_file(path)])
        with pytest.raises(CheckpointError):
            checkpoint.load(tmp_path)
    assert not canary.exists()


def test_a_state_that_could_not_be_loaded_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"loop\.odd"):
        checkpoint.save(tmp_path, {"loop": {"odd": Path("x")}})
    assert not list(tmp_path.iterdir())


def test_states_of_another_format_are_refused(tmp_path: Path) -> None:
    torch.save({"format": "something else"}, tmp_path / "state.pt")
    checkpoint._record(tmp_path / "state.pt", [checkpoint.sha256_file(tmp_path / "state.pt")])
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        checkpoint.load(tmp_path)
