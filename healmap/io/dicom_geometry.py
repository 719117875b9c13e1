"""Where DICOM pixels lie: affines from positions and orientations, and what keeps slices from being a volume.

DICOM speaks of (x, y, z) towards left, back, head; here everything is RAS+, so the first two rows change sign.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .dicom_parse import first_item, number, numbers
from .image import Geometry

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
TOLERANCE = 0.01  # of the slice distance: what rounding in headers makes of evenly spaced slices


def orientation_of(ds: Any) -> np.ndarray | None:
    """(6,): directions of growing column and of growing row index. None if absent or not two perpendicular unit vectors."""
    values = numbers(ds, "ImageOrientationPatient")
    if values is None or len(values) != 6:
        return None
    across, down = np.array(values[:3]), np.array(values[3:])
    faults = np.abs([np.linalg.norm(across) - 1, np.linalg.norm(down) - 1, across @ down])
    if faults.max() > 1e-2:
        return None
    return np.array(values)


def position_of(ds: Any) -> np.ndarray | None:
    values = numbers(ds, "ImagePositionPatient")
    return np.array(values) if values is not None and len(values) == 3 else None


def spacing_of(ds: Any) -> tuple[float, float] | None:
    """Millimetres between rows and between columns."""
    values = numbers(ds, "PixelSpacing")
    if values is None or len(values) != 2 or min(values) <= 0:
        return None
    return values[0], values[1]


def plane_geometry(ds: Any, notes: list[str]) -> Geometry | None:
    """Of a single frame: indices (row, column, 0)."""
    orientation, position, spacing = orientation_of(ds), position_of(ds), spacing_of(ds)
    if spacing is None:
        values = numbers(ds, "ImagerPixelSpacing")
        if values is None or len(values) != 2 or min(values) <= 0:
            return None
        notes.append("the spacing is that at the detector; in the patient it is smaller")
        spacing = values[0], values[1]
    return _plane(orientation, position, spacing)


def _plane(orientation: np.ndarray | None, position: np.ndarray | None, spacing: tuple[float, float] | None) -> Geometry | None:
    if spacing is None:
        return None
    if orientation is None or position is None:
        return Geometry(None, spacing)
    normal = np.cross(orientation[:3], orientation[3:])
    return Geometry(_affine(orientation[3:] * spacing[0], orientation[:3] * spacing[1], normal, position), spacing)


def stack_geometry(
    positions: np.ndarray, orientation: np.ndarray, spacing: tuple[float, float] | None, notes: list[str]
) -> Geometry | None:
    """Of frames in the given order: indices (frame, row, column).

    positions: (N, 3) of the first pixels, N >= 2. None or a geometry without affine, with a note why, if the frames do not lie
    evenly in this order. A gantry tilt (steps not along the normal) gives a sheared affine, which is exact.
    """
    regular = _regular(positions, orientation, sort=False)
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    away = np.abs(positions - positions[0] - np.arange(len(positions))[:, None] * step).max()
    normal = np.cross(orientation[:3], orientation[3:])
    distance = abs(float(step @ normal))
    even = distance > 1e-4 and away <= max(TOLERANCE * distance, 1e-3)
    if not even:
        notes.append(f"no volume: {_why_not(positions, orientation)}")
        return None
    if not regular and np.linalg.norm(np.cross(step, normal)) > 1e-3 * np.linalg.norm(step):
        notes.append("the slices are sheared against each other (gantry tilt); the affine says so")
    if spacing is None:
        notes.append("the file states no pixel spacing")
        return None
    affine = _affine(step, orientation[3:] * spacing[0], orientation[:3] * spacing[1], positions[0])
    return Geometry(affine, (float(np.linalg.norm(step)), *spacing))


def along_normal(positions: np.ndarray, orientation: np.ndarray) -> np.ndarray:
    """(N,) millimetres of every position along the common normal."""
    return positions @ np.cross(orientation[:3], orientation[3:])


def frame_geometry(ds: Any, frames: int, notes: list[str]) -> Geometry | None:
    """Of a multi-frame file: functional groups (enhanced objects) or a dose grid's offsets. None if it does not say."""
    shared = first_item(ds, "SharedFunctionalGroupsSequence")
    per_frame = _sequence(ds, "PerFrameFunctionalGroupsSequence")
    if shared is None and not per_frame:
        return _dose_geometry(ds, frames, notes)
    if len(per_frame) != frames:
        notes.append("the functional groups do not fit the number of frames")
        return None
    places, directions = [], []
    for groups in per_frame:
        place = _macro(groups, shared, "PlanePositionSequence")
        direction = _macro(groups, shared, "PlaneOrientationSequence")
        places.append(position_of(place) if place is not None else None)
        directions.append(orientation_of(direction) if direction is not None else None)
    measures = _macro(per_frame[0], shared, "PixelMeasuresSequence")
    spacing = spacing_of(measures) if measures is not None else None
    first = directions[0]
    if frames == 1:
        return _plane(first, places[0], spacing)
    if any(p is None for p in places) or first is None or any(d is None or np.abs(d - first).max() > 1e-3 for d in directions):
        notes.append("the frames state no common orientation and position")
        return None
    return stack_geometry(np.array(places), first, spacing, notes)


def macro(ds: Any, frame: int, keyword: str) -> Any | None:
    """A functional group of one frame: its own, else the shared one."""
    per_frame = _sequence(ds, "PerFrameFunctionalGroupsSequence")
    own = per_frame[frame] if frame < len(per_frame) else None
    return _macro(own, first_item(ds, "SharedFunctionalGroupsSequence"), keyword)


def _macro(own: Any | None, shared: Any | None, keyword: str) -> Any | None:
    for groups in (own, shared):
        if groups is not None and (item := first_item(groups, keyword)) is not None:
            return item
    return None


def _sequence(ds: Any, keyword: str) -> Any:
    try:
        return ds.get(keyword) or ()
    except Exception:  # damaged: as if absent
        return ()


def _dose_geometry(ds: Any, frames: int, notes: list[str]) -> Geometry | None:
    offsets = numbers(ds, "GridFrameOffsetVector")
    orientation, position = orientation_of(ds), position_of(ds)
    if offsets is None or len(offsets) != frames or frames < 2 or orientation is None or position is None:
        spacing = spacing_of(ds)
        between = number(ds, "SpacingBetweenSlices")
        return Geometry(None, (between, *spacing)) if spacing and between and between > 0 and orientation is not None else None
    normal = np.cross(orientation[:3], orientation[3:])
    start = np.array(offsets) - (offsets[0] if offsets[0] == 0 else position @ normal)  # PS3.3 C.8.8.3.2: relative, or absolute
    return stack_geometry(position + start[:, None] * normal, orientation, spacing_of(ds), notes)


def _why_not(positions: np.ndarray, orientation: np.ndarray) -> str:
    if len(np.unique(np.round(positions, 3), axis=0)) < len(positions):
        return "several images lie at the same place"
    if _regular(positions, orientation):
        return "the frames are not stored in spatial order"
    if _regular(positions, orientation, allow_missing_positions=True):
        return "slices are missing between others"
    return "the slices are not evenly spaced"


def _regular(positions: np.ndarray, orientation: np.ndarray, **options: Any) -> bool:
    """highdicom's judgement: evenly spaced along the normal."""
    from highdicom.spatial import get_volume_positions

    return get_volume_positions(positions.tolist(), orientation.tolist(), rtol=TOLERANCE, **options)[0] is not None


def _affine(*columns: np.ndarray) -> np.ndarray:
    affine = np.eye(4)
    affine[:3] = np.stack(columns, axis=1)
    return _LPS_TO_RAS @ affine
