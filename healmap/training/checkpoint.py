"""The state of a run on disk: ``state.pt`` and the one before it, each with its SHA-256.

torch.load takes many damaged files for sound ones, so nothing is read whose hash is not on record. The order of writing is
such that a process killed at any moment leaves at least one file with its hash:

1. the new state goes to a temporary file, flushed to disk, and its hash is taken on the way;
2. both hash files are told what is about to come, beside what is there;
3. ``state.pt`` becomes ``state.previous.pt``, the temporary file becomes ``state.pt``;
4. the hash files forget what is gone.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError, WriteError
from ..io.atomic import replacing, write_text
from ..io.hashing import sha256_file
from ..io.unpickle import plain

NEWEST, PREVIOUS = "state.pt", "state.previous.pt"
FORMAT, VERSION = "healmap-state", 1


def exists(folder: Path) -> bool:
    """Whether the folder holds any checkpoint, sound or not."""
    return any((folder / name).exists() for name in (NEWEST, PREVIOUS))


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Writes ``state`` (tensors, numbers, strings, lists, dicts) as the newest checkpoint; the newest becomes the previous.

    Raises:
        WriteError: the disk is full or the folder cannot be written; what was there stays.
    """
    _check_plain(state)
    newest, previous = folder / NEWEST, folder / PREVIOUS
    before = _hashes(newest)
    with replacing(newest) as temporary:
        digest = _write(temporary, {"format": FORMAT, "version": VERSION, **state}, newest)
        _record(newest, [digest, *before])
        if newest.exists():
            _record(previous, [*before, *_hashes(previous)])
            os.replace(newest, previous)
    _record(newest, [digest])
    if previous.exists():
        _record(previous, before)
    return newest


def load(folder: Path) -> dict[str, Any]:
    """The newest sound checkpoint. A damaged newest one is passed over with a warning.

    Raises:
        CheckpointError: there is none that is sound.
    """
    faults = []
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        try:
            state = _read(path)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        if faults:
            warnings.warn(f"{faults[0]}; going on from {name}", RuntimeWarning, stacklevel=2)
        return state
    raise CheckpointError("no usable checkpoint", where=str(folder), hint="; ".join(faults) + "; start the run anew")


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError("checkpoint is missing", where=path.name)
    if sha256_file(path) not in _hashes(path):
        raise CheckpointError("checkpoint is damaged: its SHA-256 is not the recorded one", where=path.name)
    state = plain(path)
    if not isinstance(state, dict) or state.get("format") != FORMAT or state.get("version") != VERSION:
        raise CheckpointError("not a checkpoint of this version of healmap", where=path.name)
    return state


def _hash_file(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _hashes(path: Path) -> list[str]:
    try:
        lines = _hash_file(path).read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    return [line.split()[0] for line in lines[:8] if line.split()]


def _record(path: Path, digests: list[str]) -> None:
    """In the format of sha256sum, so that ``sha256sum -c state.sha256`` checks a run by hand."""
    write_text(_hash_file(path), "".join(f"{digest}  {path.name}\n" for digest in dict.fromkeys(digests)))


def _write(temporary: Path, state: dict[str, Any], final: Path) -> str:
    with open(temporary, "wb", buffering=0) as file:
        sink = _HashingSink(file)
        torch.save(state, sink)  # type: ignore[arg-type]
        if sink.fault is None:
            return sink.digest.hexdigest()
    temporary.unlink(missing_ok=True)
    needed, free = size_of(state), shutil.disk_usage(final.parent).free
    raise WriteError(
        f"cannot write the checkpoint: {sink.fault.strerror or sink.fault}",
        where=str(final),
        hint=f"it needs about {needed:,} bytes, {free:,} are free; make room and resume",
    ) from sink.fault


class _HashingSink:
    """A file that hashes what it is given. Its first fault is kept, not raised: torch's writer does not survive exceptions."""

    def __init__(self, file: Any) -> None:
        self._file, self.digest = file, hashlib.sha256()
        self.fault: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self.fault is None:
            self.digest.update(view)
            try:
                done = 0
                while done < len(view):
                    done += self._file.write(view[done:])
            except OSError as error:
                self.fault = error
        return len(view)

    def flush(self) -> None:
        pass


def _check_plain(value: Any, name: str = "") -> None:
    """A state that only a full unpickler could read would be noticed at resume, when it is too late."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_plain(item, f"{name}.{key}".strip("."))
    elif isinstance(value, list | tuple):
        for item in value:
            _check_plain(item, name)
    elif not isinstance(value, Tensor) and type(value) not in (int, float, str, bool, type(None)):
        raise TypeError(f"'{name}' of the state is a {type(value).__name__}, not plain data")


def size_of(value: Any) -> int:
    """Bytes of all tensors in nested plain data."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(size_of(item) for item in value.values())
    return sum(size_of(item) for item in value) if isinstance(value, list | tuple) else 8


def first_non_finite(value: Any, name: str = "") -> str | None:
    """The path of a tensor that holds NaN or infinity, if any."""
    if isinstance(value, Tensor):
        return None if not value.is_floating_point() or bool(torch.isfinite(value).all()) else name
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        found = first_non_finite(item, f"{name}.{key}".strip("."))
        if found:
            return found
    return None
