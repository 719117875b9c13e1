"""PNG, JPEG and TIFF: the pixels as stored, 8 or 16 bits or floating point. These formats know no place in the patient."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

from ..errors import TooLargeError, UnreadableError
from .image import Image
from .limits import Limits, parsing

# Pillow only warns between one and two times its limit. Our own check of the declared size comes before any pixel is decoded.
warnings.filterwarnings("error", category=PIL.Image.DecompressionBombWarning)


def read_plain(path: Path, kind: str, limits: Limits) -> Image:
    """Reads one PNG, JPEG or TIFF file.

    Grey stays (H, W), colour becomes (H, W, 3). Kept as stored: uint8, uint16, and the types of TIFF. Changed, with a note:
    1 bit becomes 0 and 255; 2 and 4 bits are spread over 0..255; a palette is looked up; an alpha channel is dropped.
    """
    limits.check_file(path)
    if kind == "tiff":
        from .tiff import read_tiff

        return read_tiff(path, limits)
    with parsing(path, kind.upper()):
        if kind == "png" and _png_depth(path) == (16, True):
            hint = "save it as a 16-bit TIFF"  # Pillow would halve it to 8 bits without a word
            raise UnreadableError("16-bit colour PNG files are not supported", where=str(path), hint=hint)
    array, notes = read_pillow(path, kind, limits)
    return Image(array, kind, colour=array.ndim == 3, notes=tuple(notes), sources=(path,))


def read_pillow(path: Path, kind: str, limits: Limits) -> tuple[np.ndarray, list[str]]:
    """(H, W) or (H, W, 3) and notes."""
    try:
        with parsing(path, kind.upper()), _open(path, kind, limits) as picture:
            limits.check_plane(picture.height, picture.width, path)
            orientation = picture.getexif().get(0x0112, 1) if kind == "jpeg" else 1
            mode = picture.mode
            picture.load()
            array, notes = to_array(picture)
    except UnreadableError as error:
        if "decompression bomb" in str(error):
            raise TooLargeError("more pixels than the limits allow", where=str(path)) from None
        raise
    if array is None:
        raise UnreadableError(f"pixels of the kind {mode!r} are not supported", where=str(path), hint="save it as grey or RGB")
    if orientation not in (0, 1):
        notes.append("the EXIF orientation is not applied: rows and columns are as stored")
    return array, notes


def to_array(picture: PIL.Image.Image) -> tuple[Any, list[str]]:
    """The array of a loaded picture, and what was changed; None for modes without a sensible meaning here."""
    notes: list[str] = []
    if picture.mode == "P":
        notes.append("palette colours were looked up")
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    if picture.mode in ("RGBA", "LA", "PA"):
        notes.append("the alpha channel was dropped")
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    if picture.mode == "1":
        notes.append("one bit per pixel became 0 and 255")
        picture = picture.convert("L")
    if picture.mode == "CMYK":
        notes.append("CMYK was converted to RGB")
        picture = picture.convert("RGB")
    if picture.mode in ("L", "RGB"):
        return np.array(picture), notes
    if picture.mode.startswith("I;16"):
        return np.array(picture).astype(np.uint16), notes
    if picture.mode in ("I", "F"):
        array = np.array(picture)
        # Older PNG code paths of Pillow widen 16-bit grey to 32 bits.
        if picture.mode == "I" and array.size and array.min() >= 0 and array.max() <= 65535 and picture.format == "PNG":
            array = array.astype(np.uint16)
        return array, notes
    return None, notes


def _open(path: Path, kind: str, limits: Limits) -> PIL.Image.Image:
    if PIL.Image.MAX_IMAGE_PIXELS is not None and limits.pixels > PIL.Image.MAX_IMAGE_PIXELS:
        PIL.Image.MAX_IMAGE_PIXELS = limits.pixels  # the caller asked for it; Pillow has no per-file setting
    return PIL.Image.open(path, formats=(kind.upper(),))


def _png_depth(path: Path) -> tuple[int, bool]:
    """Bits per sample, and whether there are several samples."""
    with open(path, "rb") as file:
        head = file.read(26)
    return (head[24], head[25] in (2, 4, 6)) if len(head) == 26 else (0, False)
