"""TIFF: tifffile for what it decodes itself, Pillow's libtiff for other compressions, an error with a name for the rest."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DecoderMissingError, UnreadableError
from .image import Image
from .limits import Limits, parsing

_KINDS = "buif"


def read_tiff(path: Path, limits: Limits) -> Image:
    """Pages of equal shape and type become a volume (pages, rows, columns); reduced copies and thumbnails are left out."""
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # it reports damaged tags there, before it raises
    notes: list[str] = []
    with parsing(path, "TIFF"), tifffile.TiffFile(path) as tiff:
        pages = [page for page in _pages(tiff, path) if not page.is_reduced]
        if not pages:
            raise UnreadableError("the TIFF file holds no image", where=str(path))
        first = pages[0]
        _check(first, len(pages), limits, path)
        if any((page.shape, page.dtype) != (first.shape, first.dtype) for page in pages):
            raise UnreadableError(
                "the pages of the TIFF file differ in size or type",
                where=str(path),
                hint="save every page as a file of its own",
            )
        planes = [_plane(_page(page, index, path), page, path, notes) for index, page in enumerate(pages)]
    array = planes[0] if len(planes) == 1 else np.stack(planes)
    if len(planes) > 1:
        notes.append(f"{len(planes)} pages were read as a volume")
    return Image(
        array,
        "tiff",
        colour=planes[0].ndim == 3,
        slice_axis=0 if len(planes) > 1 else None,
        notes=tuple(dict.fromkeys(notes)),
        sources=(path,),
    )


def _pages(tiff: Any, path: Path) -> list[Any]:
    if len(tiff.pages) > 10_000:
        raise UnreadableError(f"{len(tiff.pages)} pages in one TIFF file", where=str(path))
    return [tiff.pages.get(i) for i in range(len(tiff.pages))]


def _check(page: Any, pages: int, limits: Limits, path: Path) -> None:
    limits.check_plane(page.imagelength, page.imagewidth, path)
    if page.imagedepth != 1 or page.samplesperpixel not in (1, 2, 3, 4):
        raise UnreadableError(
            f"{page.samplesperpixel} samples per pixel, depth {page.imagedepth}", where=str(path), hint="save it as grey or RGB"
        )
    limits.check_volume((pages, page.imagelength, page.imagewidth, page.samplesperpixel), path)
    if page.dtype is None or page.dtype.kind not in _KINDS:
        raise UnreadableError(
            f"TIFF values of type {page.dtype} are not supported", where=str(path), hint="save it as 8 or 16 bits or float"
        )
    limits.check_ratio(pages * page.nbytes, path.stat().st_size, path)


def _page(page: Any, index: int, path: Path) -> np.ndarray:
    compression = getattr(page.compression, "name", str(page.compression))
    bits = page.imagelength * page.imagewidth * page.samplesperpixel * page.bitspersample
    try:
        if compression == "NONE" and sum(page.databytecounts) * 8 < bits:
            raise UnreadableError("the TIFF file is cut short", where=str(path))
        return page.asarray(maxworkers=1)
    except (ValueError, KeyError, ImportError) as error:
        # tifffile asks for the package imagecodecs for everything but plain, deflate, PackBits and LZMA data.
        if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
            raise
    array = _by_pillow(path, index, page)
    if array is None:
        raise DecoderMissingError(
            f"TIFF compression {compression} needs the package imagecodecs",
            where=str(path),
            hint="install it (pip install imagecodecs) or save the file uncompressed",
        )
    return array


def _by_pillow(path: Path, index: int, page: Any) -> np.ndarray | None:
    """Pillow's reading, if it comes out in the very type and shape the file declares."""
    import PIL.Image

    try:
        with PIL.Image.open(path, formats=("TIFF",)) as picture:
            picture.seek(index)
            picture.load()
            if picture.mode not in ("1", "L", "P", "RGB", "RGBA", "I;16", "I;16B", "I;16L", "F"):
                return None
            array = np.array(picture)
    except PIL.UnidentifiedImageError:  # a compression or a layout it does not know either
        return None
    same = array.dtype.newbyteorder("=") == page.dtype.newbyteorder("=") or (page.bitspersample == 1 and array.dtype == bool)
    return array if same and array.shape == page.shape else None


def _plane(array: np.ndarray, page: Any, path: Path, notes: list[str]) -> np.ndarray:
    """(H, W) or (H, W, 3) in native byte order from one page's array."""
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.ndim == 3 and int(page.planarconfig) == 2:
        array = np.moveaxis(array, 0, -1)
    photometric = getattr(page.photometric, "name", "")
    if array.dtype == bool or page.bitspersample == 1:
        notes.append("one bit per pixel became 0 and 255")
        array = (array != 0).astype(np.uint8) * np.uint8(255)
    if photometric == "PALETTE":
        notes.append("palette colours were looked up")
        array = _look_up(array, page, path)
    elif photometric == "MINISWHITE":
        notes.append("white-is-zero was inverted, so that bright is high")
        array = _invert(array, page)
    elif photometric in ("SEPARATED", "CIELAB", "ICCLAB", "ITULAB", "LOGL", "LOGLUV"):
        raise UnreadableError(
            f"TIFF colours of the kind {photometric} are not supported", where=str(path), hint="save it as RGB"
        )
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        notes.append("the alpha channel was dropped")
        array = array[..., 0] if array.shape[-1] == 2 else array[..., :3]
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 and (array.ndim != 3 or array.shape[-1] != 3):
        raise UnreadableError(f"a TIFF page of shape {array.shape} is neither grey nor RGB", where=str(path))
    return np.ascontiguousarray(array)


def _look_up(array: np.ndarray, page: Any, path: Path) -> np.ndarray:
    colours = np.asarray(page.colormap)  # (3, entries) uint16
    if array.ndim != 2 or colours.ndim != 2 or (array.size and int(array.max()) >= colours.shape[1]):
        raise UnreadableError("a pixel points outside the TIFF palette", where=str(path))
    if not (colours % 257).any() or not (colours & 255).any():
        colours = (colours >> 8).astype(np.uint8)  # 8-bit colours, stored twice over or shifted
    return colours.T[array]


def _invert(array: np.ndarray, page: Any) -> np.ndarray:
    if array.dtype.kind == "u":
        top = 2**page.bitspersample - 1 if page.bitspersample > 1 else 255
        return (top - array.astype(np.int64)).astype(array.dtype)
    return -array if array.dtype.kind == "f" else -1 - array
