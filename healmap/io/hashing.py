"""Fingerprints of files and of pixels."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np


def sha256_file(path: str | Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pixel_hash(array: np.ndarray) -> str:
    """SHA-256 of the values, not of their storage: equal pictures give equal hashes whatever byte order, layout or width.

    Whole numbers are brought to the smallest integer type that holds the array, floats to float32 where that is exact; the
    shape and whether the values are whole or floating count. So the big-endian copy, the other transfer syntax and the
    16-bit file of an 8-bit picture are recognised.
    """
    array = np.asarray(array)
    if array.dtype.kind in "bui":
        low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
        kind, dtype = "i", np.result_type(np.min_scalar_type(low), np.min_scalar_type(high))
    elif array.dtype.kind == "f":
        kind, dtype = "f", np.dtype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            narrow = array.astype(np.float32)
            if np.array_equal(narrow, array, equal_nan=True):
                array, dtype = narrow + np.float32(0), np.dtype(np.float32)  # -0.0 + 0.0 = 0.0
    else:
        raise TypeError(f"no pixels: an array of type {array.dtype}")
    canonical = np.ascontiguousarray(array, dtype=dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{kind}{array.shape}{dtype.itemsize}".encode())
    digest.update(canonical.data)
    return digest.hexdigest()
