"""What data sets that we make have in common: a folder that is whole or absent, and pixels in files."""

from __future__ import annotations

import io
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil

from ..errors import HealError, UsageError, WriteError
from ..io.atomic import PREFIX


def refuse_used(out: Path) -> None:
    """Raises UsageError unless ``out`` is a new or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            "the folder is not empty" if out.is_dir() else "not a folder", where=str(out), hint="name a new folder"
        )


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``out``, which takes its name at the end; on any error, or a stop, nothing is left.

    Raises:
        UsageError: ``out`` holds something already.
        WriteError: the disk is full, the folder cannot be written, ...
    """
    refuse_used(out)
    building = out.parent / f"{PREFIX}{secrets.token_hex(8)}"
    try:
        building.mkdir(parents=True)
        yield building
        if out.exists():
            out.rmdir()
        os.rename(building, out)
    except HealError:
        raise
    except OSError as error:
        raise WriteError("cannot write", where=str(out), hint=error.strerror or type(error).__name__) from error
    finally:
        shutil.rmtree(building, ignore_errors=True)


def save_png(path: Path, array: NDArray[Any]) -> None:
    """uint8 (H, W) or (H, W, 3), or uint16 (H, W)."""
    buffer = io.BytesIO()
    Pil.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG", compress_level=6)
    path.write_bytes(buffer.getvalue())


def in_16_bits(values: NDArray[np.float64]) -> NDArray[np.uint16]:
    """[-1, 1] as 0..65535, as normalisation ``none`` reads it; what lies outside is cut off."""
    return np.rint((np.clip(values, -1, 1) + 1) * (65535 / 2)).astype(np.uint16)
