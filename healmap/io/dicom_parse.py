"""From a DICOM file to its elements: bounded, quiet, and without trusting what the header promises."""

from __future__ import annotations

import io
import logging
import re
import sys
import warnings
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from ..errors import TooLargeError, UnreadableError
from .limits import Limits, parsing

DEFLATED, EXPLICIT, IMPLICIT, BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"


@cache
def load_pydicom() -> ModuleType:
    """Imports pydicom once, with its decoders.

    While it is imported, ``dl`` is marked as absent: pydicom imports python-gdcm where installed, that tries ``import dl``,
    and a folder called ``dl`` in the working directory would answer and break both. pydicom's warnings and log records are
    switched off for the process, because they quote element values, patients' names included.
    """
    guard = "dl" not in sys.modules
    if guard:
        sys.modules["dl"] = None  # type: ignore[assignment]
    try:
        import pydicom
        import pydicom.pixels
        from pydicom import config
    finally:
        if guard:
            del sys.modules["dl"]
    config.settings.reading_validation_mode = config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    warnings.filterwarnings("ignore", module=r"(pydicom|healmap\.io)(\.|$)")
    from .dicom_decode import register

    register()
    return pydicom


def read_dataset(path: Path, limits: Limits, *, tags: Iterable[str] | None = None) -> Any:
    """The data set of a file, pixels as undecoded bytes included; with ``tags`` only these and without pixels.

    Deflated files are inflated, up to the limits, and then count as explicit little-endian.
    """
    packed = limits.check_file(path)
    pydicom = load_pydicom()
    with parsing(path, "DICOM", quote=False):
        if _is_deflated(path):
            return _inflated(path, limits, packed)
        wanted = None if tags is None else list(tags)
        ds = pydicom.dcmread(path, force=True, stop_before_pixels=tags is not None, specific_tags=wanted)
        if not len(ds):
            raise UnreadableError("not a DICOM file: it holds no usable elements", where=str(path))
        return ds


def settle_syntax(ds: Any) -> bool:
    """Sets a missing transfer syntax to the uncompressed one that pydicom parsed the bytes with; returns if it was missing."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    if not getattr(ds, "file_meta", None):
        ds.file_meta = FileMetaDataset()
    if ds.file_meta.get("TransferSyntaxUID"):
        return False
    implicit, little = ds.original_encoding
    ds.file_meta.TransferSyntaxUID = UID(IMPLICIT if implicit else EXPLICIT if little else BIG)
    return True


def _is_deflated(path: Path) -> bool:
    from pydicom.filereader import read_file_meta_info

    try:
        return read_file_meta_info(path).get("TransferSyntaxUID") == DEFLATED
    except Exception:  # no preamble, no or damaged meta information: then it is not declared as deflated either
        return False


def _inflated(path: Path, limits: Limits, packed: int) -> Any:
    from pydicom.filereader import read_dataset as read_elements
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import UID

    meta = read_file_meta_info(path)
    start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    data = path.read_bytes()[start:]
    most = min(limits.most_unpacked(packed), limits.file_bytes)
    size = 0
    # Twice through the data: counting first keeps a bomb's memory at one chunk.
    for chunk in _chunks(data):
        size += len(chunk)
        if size > most:
            raise TooLargeError(
                f"{packed} compressed bytes become more than {most}",
                where=str(path),
                hint="raise the limit if the file is trusted (healmap.io.Limits)",
            )
    plain = io.BytesIO(b"".join(_chunks(data)))
    ds = read_elements(plain, is_implicit_VR=False, is_little_endian=True)
    meta.TransferSyntaxUID = UID(EXPLICIT)  # of what we hold now
    ds.file_meta = meta
    return ds


def _chunks(data: bytes) -> Iterable[bytes]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    while data and not inflater.eof:
        chunk = inflater.decompress(data, 1 << 22)
        data = inflater.unconsumed_tail
        if chunk:
            yield chunk


# --- single values -------------------------------------------------------------------------------------------------------


def number(ds: Any, keyword: str) -> float | None:
    """The first value of a numeric element; None when absent, empty or no finite number."""
    values = numbers(ds, keyword)
    return values[0] if values else None


def numbers(ds: Any, keyword: str) -> tuple[float, ...] | None:
    """All values of a numeric element; None when absent, empty, or any of them no finite number."""
    try:
        value = ds.get(keyword)
        if value is None or value == "":
            return None
        values = tuple(float(v) for v in (value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)))
    except Exception:  # a damaged optional element counts as absent
        return None
    return values if values and all(abs(v) < 1e300 for v in values) else None


def text(ds: Any, keyword: str) -> str | None:
    """A text element, or None when absent, empty or damaged."""
    try:
        value = ds.get(keyword)
        value = "" if value is None else str(value).strip(" \0")
    except Exception:
        return None
    return value or None


def code(ds: Any, keyword: str) -> str | None:
    """A code string (CS), safe to show; None if it is anything else."""
    value = text(ds, keyword)
    return value if value and re.fullmatch(r"[A-Z0-9_ ]{1,16}", value) else None


def first_item(ds: Any, *keywords: str) -> Any | None:
    """Follows sequences by their first items; None where one is absent, empty or damaged."""
    for keyword in keywords:
        try:
            sequence = ds.get(keyword)
            ds = sequence[0] if sequence else None
        except Exception:
            return None
        if ds is None:
            return None
    return ds
