"""Files that are either whole or absent: write beside the target, flush to disk, rename."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import WriteError

PREFIX = ".healmap-part-"  # a killed process leaves such files behind; ``remove_stale`` finds them


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; on success it replaces ``path``, on any error it is removed.

    The temporary name keeps the last two suffixes, because writers such as nibabel choose the format by them. Missing parent
    folders are made.

    Raises:
        WriteError: the disk is full, the folder cannot be written, ...
    """
    path = Path(path)
    temporary = path.parent / f"{PREFIX}{secrets.token_hex(8)}{''.join(path.suffixes[-2:])}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except WriteError:
        raise  # from within: it knows better
    except OSError as error:
        raise WriteError("cannot write", where=str(path), hint=error.strerror or type(error).__name__) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: str | Path, data: bytes) -> Path:
    with replacing(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str) -> Path:
    """UTF-8; names that are not valid UTF-8 (surrogates from the file system) are escaped rather than refused."""
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_json(path: str | Path, value: Any) -> Path:
    """Indented JSON in the given order of keys; NaN and infinities become null, which every JSON reader understands."""
    return write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_stale(folder: str | Path) -> int:
    """Removes what killed writers left in ``folder``; returns how many. Only for a folder no other process writes to."""
    stale = list(Path(folder).glob(PREFIX + "*"))
    for path in stale:
        with suppress(OSError):
            path.unlink()
    return len(stale)


def safe_cell(text: str) -> str:
    """A cell that no spreadsheet takes for a formula: a leading = + - @ (tab, break) gets an apostrophe, numbers do not."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return text
    with suppress(ValueError):
        float(text)
        return text
    return "'" + text


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _finite(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return value


def _flush(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _flush_folder(folder: Path) -> None:
    # Without this a power cut may forget the rename. Not every system lets a folder be opened (Windows does not).
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
