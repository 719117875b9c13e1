"""One DICOM file: stored values, and what they mean.

In this order: decode, stored values, modality rescale or look-up table, MONOCHROME1 turned over, palette looked up. Windows are
recorded, never applied; overlays are never burnt in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UnreadableError
from . import dicom_decode
from .dicom_geometry import frame_geometry, plane_geometry
from .dicom_parse import code, first_item, read_dataset, settle_syntax, text
from .dicom_values import padding_mask, palette_colours, rescaled, turned, window_of
from .image import Image
from .limits import Limits, parsing

_GREY, _COLOUR = ("MONOCHROME1", "MONOCHROME2"), ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420")


def read_dicom(path: Path, limits: Limits) -> Image:
    """A single frame as a plane (H, W[, 3]), several as a volume (frames, rows, columns[, 3]).

    MONOCHROME1 (low is bright) is turned over once, so that high is bright in every array: value -> lowest + highest possible
    value - value, the ends taken from the bits stored and then rescaled, so that all files of a kind are treated alike.
    """
    ds = read_dataset(path, limits)
    with parsing(path, "DICOM", quote=False):
        return _image(ds, path, limits)


def read_dicom_stored(path: str | Path, limits: Limits = Limits()) -> np.ndarray:
    """Stored values before any rescaling, native byte order, unused bits removed; (frames,) rows, columns (, 3); YBR as RGB."""
    path = Path(path)
    ds = read_dataset(path, limits)
    with parsing(path, "DICOM", quote=False):
        return stored_values(ds, path, limits)


def stored_values(ds: Any, path: Path, limits: Limits) -> np.ndarray:
    """Decodes the pixels after checking what the header declares against the limits and the bytes that are there."""
    from pydicom.pixels import get_decoder

    guessed = settle_syntax(ds)
    keyword = next((name for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData") if name in ds), None)
    if keyword is None:
        if not any(name in ds for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "Modality", "Rows")):
            raise UnreadableError("not a DICOM file: it holds no usable elements", where=str(path))
        kind = code(ds, "Modality")
        raise UnreadableError(
            "the DICOM file holds no pixels", where=str(path), hint=f"it is of the kind {kind}" if kind else ""
        )
    syntax = ds.file_meta.TransferSyntaxUID
    if guessed and "Rows" not in ds:
        raise UnreadableError("the DICOM file states no transfer syntax and describes no pixels", where=str(path))
    rows, columns, frames, samples = _layout(ds, path)
    limits.check_plane(rows, columns, path)
    limits.check_volume((frames, rows, columns, samples), path)
    allocated = _whole(ds, "BitsAllocated", path, default=64 if keyword == "DoubleFloatPixelData" else 32)
    stored = _whole(ds, "BitsStored", path, default=allocated)
    high = _whole(ds, "HighBit", path, default=stored - 1)
    if keyword == "PixelData" and (allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated):
        raise UnreadableError(f"{stored} of {allocated} bits per value are not supported", where=str(path))
    needed = (rows * columns * samples * frames * allocated + 7) // 8
    data = ds[keyword].value
    if not isinstance(data, bytes | bytearray) or not data:
        raise UnreadableError("the DICOM file holds no pixels", where=str(path), hint="the pixel element is empty")
    options: dict[str, Any] = {}
    if syntax.is_encapsulated:
        limits.check_ratio(needed, len(data), path)
        if str(syntax) in dicom_decode.OURS:
            dicom_decode.require(syntax, stored, path)
            options["decoding_plugin"] = dicom_decode.PLUGIN
        elif not syntax.is_transfer_syntax or syntax.name != "RLE Lossless":
            raise UnreadableError(f"pixels encoded as {_name(syntax)} are not supported", where=str(path))
    else:
        subsampled = code(ds, "PhotometricInterpretation") == "YBR_FULL_422"
        if len(data) < (needed // 3 * 2 if subsampled else needed):
            raise UnreadableError(f"the pixels are cut short: {len(data)} of {needed} bytes", where=str(path))
    shifted = keyword == "PixelData" and allocated > 1 and stored < allocated and str(syntax) not in dicom_decode.OURS
    if shifted:
        options["correct_unused_bits"] = False  # pydicom takes the high bit for granted
    dicom_decode.fault()
    try:
        array = get_decoder(syntax).as_array(ds, **options)[0]
    except Exception as error:
        raise _typed(error, path, syntax) from None
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if shifted:
        array = _used_bits(array, stored, high if stored - 1 <= high < allocated else stored - 1)
    return array


def _typed(error: Exception, path: Path, syntax: Any) -> Exception:
    fault = dicom_decode.fault()
    if fault is not None:
        return type(fault)(fault.what, where=str(path), hint=fault.hint)
    if isinstance(error, MemoryError | RecursionError):
        return error
    # No words of the parser: they may quote values of other elements.
    return UnreadableError(f"the pixels ({_name(syntax)}) cannot be decoded", where=str(path), hint=type(error).__name__)


def _name(syntax: Any) -> str:
    return str(syntax.name) if syntax.is_transfer_syntax else "an unknown transfer syntax"


def _layout(ds: Any, path: Path) -> tuple[int, int, int, int]:
    """Rows, columns, frames, samples per pixel."""
    return (
        _whole(ds, "Rows", path),
        _whole(ds, "Columns", path),
        max(1, _whole(ds, "NumberOfFrames", path, default=1)),
        _whole(ds, "SamplesPerPixel", path, default=1),
    )


def _whole(ds: Any, keyword: str, path: Path, default: int | None = None) -> int:
    if keyword not in ds and default is not None:
        return default
    try:
        value = ds[keyword].value
        if value in (None, "") and default is not None:
            return default
        return int(value)
    except Exception:
        raise UnreadableError(f"the DICOM element {keyword} is missing or not a number", where=str(path)) from None


def _used_bits(array: np.ndarray, stored: int, high: int) -> np.ndarray:
    """Takes the bits ``high - stored + 1 .. high`` of every value; what lies around them (old overlays) is dropped."""
    width = array.dtype.itemsize * 8
    up, down = width - 1 - high, width - stored
    return np.right_shift(np.left_shift(array, up), down)  # arithmetic for signed types: the sign is extended


# --- meaning -------------------------------------------------------------------------------------------------------------


def _image(ds: Any, path: Path, limits: Limits) -> Image:
    notes: list[str] = []
    if not getattr(ds, "file_meta", {}).get("TransferSyntaxUID"):
        notes.append("the file states no transfer syntax; it was taken from the bytes")
    array = stored_values(ds, path, limits)
    frames = _layout(ds, path)[2]
    photometric = text(ds, "PhotometricInterpretation")
    colour = photometric not in _GREY
    window = padding = None
    if photometric in _GREY:
        padding = padding_mask(array, ds)
        array, ends = rescaled(array, ds, frames, notes)
        window = window_of(ds, notes)
        if photometric == "MONOCHROME1":
            notes.append("MONOCHROME1 was turned over, so that high is bright")
            array, window = turned(array, window, sum(ends))
    elif photometric == "PALETTE COLOR":
        array = palette_colours(array, ds)
    elif photometric not in _COLOUR:
        kind = code(ds, "PhotometricInterpretation") or "none"
        raise UnreadableError(f"the photometric interpretation ({kind}) is not supported", where=str(path))
    volume = frames > 1
    if array.ndim != 2 + volume + colour or (colour and array.shape[-1] != 3):
        raise UnreadableError(f"pixels of shape {array.shape} do not fit the photometric interpretation", where=str(path))
    if volume or first_item(ds, "PerFrameFunctionalGroupsSequence") is not None:
        geometry = frame_geometry(ds, frames, notes)
    else:
        geometry = plane_geometry(ds, notes)
    if geometry is None or geometry.affine is None:
        notes.append("no position in the patient is known")
    return Image(
        array,
        "dicom",
        geometry=geometry,
        slice_axis=0 if volume else None,
        colour=colour,
        window=window,
        padding=padding,
        patient_id=text(ds, "PatientID"),
        modality=code(ds, "Modality"),
        notes=tuple(notes),
        sources=(path,),
        about={"transfer_syntax": _name(ds.file_meta.TransferSyntaxUID), "photometric": str(photometric)},
    )
