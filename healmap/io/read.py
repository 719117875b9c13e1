"""The one door in: what kind of file it is, by content, and the image in it."""

from __future__ import annotations

import zlib
from pathlib import Path

from ..errors import UnreadableError
from .image import Image
from .limits import Limits

PLAIN = ("png", "jpeg", "tiff")
_LIMITS = Limits()


def kind_of(path: str | Path) -> str | None:
    """ "png", "jpeg", "tiff", "nifti", "dicom", or None: judged by the first bytes, not by the name.

    Raises:
        UnreadableError: the path cannot be opened, or is not a plain file.
    """
    path = Path(path)
    _LIMITS_FOR_KIND.check_file(path)
    try:
        with open(path, "rb") as file:
            head = file.read(1024)
    except OSError as error:
        raise UnreadableError("cannot open the file", where=str(path), hint=error.strerror or "") from None
    return _kind(head)


_LIMITS_FOR_KIND = Limits(file_bytes=1 << 62)


def _kind(head: bytes) -> str | None:
    if head[128:132] == b"DICM":  # first: the preamble may be dressed up as another format
        return "dicom"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(31).decompress(head, 1024)
        except zlib.error:
            return None
    if int.from_bytes(head[:4], "little") in (348, 540) or int.from_bytes(head[:4], "big") in (348, 540):
        return "nifti"
    # DICOM without preamble: group 0002 or 0008, little- or big-endian, with a small element number.
    if len(head) >= 8 and head[:2] in (b"\x02\0", b"\x08\0", b"\0\x02", b"\0\x08") and (head[3] == 0 or head[2] == 0):
        return "dicom"
    return None


def read_image(path: str | Path, limits: Limits = _LIMITS) -> Image:
    """Reads a PNG, JPEG, TIFF, NIfTI or DICOM file, or a folder that holds one DICOM series.

    Raises:
        UnreadableError: damaged, of another kind, or without pixels; DecoderMissingError: a package is missing, named in the
        message; TooLargeError: beyond ``limits``; GeometryError: the slices of a series contradict one another.
    """
    path = Path(path)
    if path.is_dir():
        from .dicom_series import read_only_series

        return read_only_series(path, limits)
    kind = kind_of(path)
    if kind in PLAIN:
        from .plain import read_plain

        return read_plain(path, kind, limits)
    if kind == "nifti":
        from .nifti import read_nifti

        return read_nifti(path, limits)
    if kind == "dicom":
        from .dicom import read_dicom

        return read_dicom(path, limits)
    raise UnreadableError("not a PNG, JPEG, TIFF, NIfTI or DICOM file", where=str(path))


def read_series(folder: str | Path, limits: Limits = _LIMITS) -> list[Image]:
    """Every DICOM series of a folder (not of its sub-folders), one image each, in the order of their first file names."""
    from .dicom_series import read_all_series

    return read_all_series(Path(folder), limits)
