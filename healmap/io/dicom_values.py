"""From stored DICOM values to what they measure: rescale, look-up tables, MONOCHROME1, windows, padding, palettes."""

from __future__ import annotations

from typing import Any

import numpy as np

from .dicom_geometry import macro
from .dicom_parse import first_item, number, numbers, text

Ends = tuple[float, float]


def rescaled(stored: np.ndarray, ds: Any, frames: int, notes: list[str]) -> tuple[np.ndarray, Ends]:
    """Values after the modality step, and what the lowest and highest storable value become.

    Whole slopes and intercepts keep whole numbers (the stored type where they fit, else int16, int32, int64), others give
    float32, rounded once from float64. Dose grids are multiplied by their scaling (gray, or relative).
    """
    if (lut := first_item(ds, "ModalityLUTSequence")) is not None:
        from pydicom.pixels import apply_modality_lut

        table = np.asarray(lut.LUTData)
        return apply_modality_lut(stored, ds), (float(table.min()), float(table.max()))
    steps = [_step(ds, frame, notes) for frame in range(frames if _has_groups(ds) else 1)]
    steps = steps[:1] if all(step == steps[0] for step in steps) else steps
    low, high = _ends(stored, ds)
    ends = tuple(sorted((low * steps[0][0] + steps[0][1], high * steps[0][0] + steps[0][1])))
    if len(steps) == 1 and steps[0] == (1.0, 0.0):
        return stored, (low, high)
    if len(steps) == 1 and stored.dtype.kind in "iu" and all(value == int(value) for value in steps[0]):
        return _whole(stored, int(steps[0][0]), int(steps[0][1])), (ends[0], ends[1])
    out = np.empty(stored.shape, dtype=np.float32)
    planes, targets = (stored, out) if frames > 1 else (stored[None], out[None])
    for k, (plane, target) in enumerate(zip(planes, targets, strict=True)):  # plane by plane: float64 of one at a time
        slope, intercept = steps[k % len(steps)]
        with np.errstate(over="ignore", invalid="ignore"):
            target[...] = plane.astype(np.float64) * slope + intercept
    return out, (ends[0], ends[1])


def turned(array: np.ndarray, window: Ends | None, turn: float) -> tuple[np.ndarray, Ends | None]:
    """MONOCHROME1 the other way round: ``turn`` minus every value; ``turn`` is the sum of the lowest and highest value."""
    mirrored = None if window is None else (turn - window[1], turn - window[0])
    if array.dtype.kind in "iu" and turn == int(turn):
        return _whole(array, -1, int(turn)), mirrored
    return (turn - array.astype(np.float64)).astype(np.float32), mirrored


def _whole(array: np.ndarray, slope: int, intercept: int) -> np.ndarray:
    """array * slope + intercept in the first integer type that holds the result."""
    ends = [int(value) * slope + intercept for value in ((array.min(), array.max()) if array.size else (0, 0))]
    for dtype in (array.dtype, np.dtype(np.int16), np.dtype(np.int32), np.dtype(np.int64)):
        if np.iinfo(dtype).min <= min(ends) and max(ends) <= np.iinfo(dtype).max:
            break
    # Modulo 2^n throughout: what overflows on the way comes back, since the result fits.
    out = array.astype(dtype)
    bits = 8 * dtype.itemsize
    out *= _wrap(slope, bits, dtype)
    out += _wrap(intercept, bits, dtype)
    return out


def _wrap(value: int, bits: int, dtype: np.dtype) -> np.ndarray:
    return np.array(value % 2**bits, dtype=np.uint64).astype(dtype)


def _has_groups(ds: Any) -> bool:
    return "SharedFunctionalGroupsSequence" in ds or "PerFrameFunctionalGroupsSequence" in ds


def _step(ds: Any, frame: int, notes: list[str]) -> tuple[float, float]:
    """Slope and intercept of one frame."""
    scaling = number(ds, "DoseGridScaling")
    if scaling is not None and scaling > 0:
        notes += [] if any("dose" in note for note in notes) else [f"dose values, {(text(ds, 'DoseUnits') or '')[:2]} scaled"]
        return scaling, 0.0
    source = (macro(ds, frame, "PixelValueTransformationSequence") if _has_groups(ds) else None) or ds
    slope, intercept = number(source, "RescaleSlope"), number(source, "RescaleIntercept")
    if slope == 0:
        notes.append("a rescale slope of 0 was ignored")
        slope = 1.0
    return 1.0 if slope is None else slope, 0.0 if intercept is None else intercept


def _ends(stored: np.ndarray, ds: Any) -> Ends:
    """The lowest and highest storable value; of floating-point pixels, which have none, the lowest and highest present."""
    if stored.dtype.kind == "f":
        finite = stored[np.isfinite(stored)]
        return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    bits = int(number(ds, "BitsStored") or 8 * stored.dtype.itemsize)
    return (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if stored.dtype.kind == "i" else (0.0, 2.0**bits - 1)


def window_of(ds: Any, notes: list[str]) -> Ends | None:
    """(lowest, highest) displayed value of the first window; PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    source = (macro(ds, 0, "FrameVOILUTSequence") if _has_groups(ds) else None) or ds
    centres, widths = numbers(source, "WindowCenter"), numbers(source, "WindowWidth")
    if not centres or not widths or widths[0] <= 0:
        if first_item(source, "VOILUTSequence") is not None:
            notes.append("the file proposes a display look-up table; it is not used")
        return None
    if len(centres) > 1:
        notes.append(f"{len(centres)} windows; the first was taken")
    centre, width = centres[0], widths[0]
    function = text(source, "VOILUTFunction") or "LINEAR"
    if function == "SIGMOID":
        notes.append("the window is meant for a sigmoid; its straight equivalent was taken")
    if function == "LINEAR" and width > 1:
        return centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    return centre - width / 2, centre + width / 2


def padding_mask(stored: np.ndarray, ds: Any) -> np.ndarray | None:
    """True where the stored value is Pixel Padding Value, or between it and Pixel Padding Range Limit; None if not declared."""
    value, limit = number(ds, "PixelPaddingValue"), number(ds, "PixelPaddingRangeLimit")
    if value is None:
        return None
    ends = [_as_stored(end, stored) for end in (value, value if limit is None else limit)]
    return (stored >= min(ends)) & (stored <= max(ends))


def _as_stored(value: float, stored: np.ndarray) -> float:
    """Files write the padding value as an unsigned number although the pixels are signed, and the other way round."""
    if stored.dtype.kind == "i" and value > np.iinfo(stored.dtype).max:
        return value - 2 ** (8 * stored.dtype.itemsize)
    if stored.dtype.kind == "u" and value < 0:
        return value + 2 ** (8 * stored.dtype.itemsize)
    return value


def palette_colours(stored: np.ndarray, ds: Any) -> np.ndarray:
    """(..., 3), uint8 or uint16 as the tables are; tables of 8-bit colours written into 16 bits count as 8 bits."""
    from pydicom.pixels import apply_color_lut

    colours = apply_color_lut(stored, ds)
    tables = [ds.get(f"{name}PaletteColorLookupTableData") for name in ("Red", "Green", "Blue")]
    if colours.dtype != np.uint16 or any(table is None or len(table) % 2 for table in tables):
        return colours
    entries = np.frombuffer(b"".join(tables), dtype="<u2")
    if not (entries & 255).any() or not (entries % 257).any():
        return (colours >> 8).astype(np.uint8)
    return colours
