"""An image as it was stored, with what is known about its place in the patient, and never more than that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import GeometryError, UsageError


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where array elements lie in the patient.

    affine: (4, 4) float64, maps array indices, in the array's own axis order, to patient millimetres, RAS+ (x towards the
        patient's right, y to the front, z to the head). For a plane the indices are (row, column, 0), the third column being
        the unit normal. None where the file does not say.
    spacing: millimetres between neighbours along each array axis; None where the file does not say. It can be known although
        orientation and position are not.
    """

    affine: np.ndarray | None = None
    spacing: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if self.affine is not None:
            affine = np.array(self.affine, dtype=np.float64)
            if affine.shape != (4, 4) or not is_usable(affine):
                raise GeometryError("the affine is not an invertible 4 x 4 matrix")
            affine.setflags(write=False)
            object.__setattr__(self, "affine", affine)
        if self.spacing is not None:
            spacing = tuple(float(s) for s in self.spacing)
            if not all(0 < s < np.inf for s in spacing):
                raise GeometryError(f"the spacing {spacing} is not positive")
            object.__setattr__(self, "spacing", spacing)


@dataclass(frozen=True, eq=False)
class Image:
    """One image or volume.

    array: planes (H, W); volumes (A, B, C) in the file's own axis order: NIfTI (i, j, k), DICOM and multi-page TIFF
        (frames, rows, columns); NIfTI with several volumes (A, B, C, T). Colour adds a last axis of length 3 (RGB). The data
        type is the stored one where no scaling applies, else the smallest exact one (whole numbers) or float32.
    slice_axis: the axis along which slices are taken by default; None for planes.
    window: (lowest, highest) displayed value as the file proposes it, in the array's units; never applied.
    padding: True where the file declares "no image here"; shape of the array without the colour axis. None: nothing declared.
    patient_id: as the file says; for keeping patients together, not for display.
    notes: what was decided or could not be known, one sentence each.
    sources: the files it was read from, in slice order for a series.
    header: what is needed to write results on the same grid (NIfTI: the header object).
    """

    array: np.ndarray
    kind: str  # "png", "jpeg", "tiff", "nifti", "dicom"
    geometry: Geometry | None = None
    slice_axis: int | None = None
    colour: bool = False
    window: tuple[float, float] | None = None
    padding: np.ndarray | None = None
    patient_id: str | None = None
    modality: str | None = None
    notes: tuple[str, ...] = ()
    sources: tuple[Path, ...] = ()
    header: Any = None
    about: Mapping[str, str] = field(default_factory=dict)  # further harmless facts: transfer syntax, photometric, units

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape without the colour axis."""
        return self.array.shape[:-1] if self.colour else self.array.shape

    @property
    def is_volume(self) -> bool:
        return self.slice_axis is not None

    @property
    def affine(self) -> np.ndarray | None:
        return self.geometry.affine if self.geometry else None

    @property
    def spacing(self) -> tuple[float, ...] | None:
        return self.geometry.spacing if self.geometry else None

    def with_array(self, array: np.ndarray) -> Image:
        return replace(self, array=array)


def is_usable(affine: np.ndarray) -> bool:
    """Whether a 4 x 4 matrix can be an affine: finite, invertible, last row (0, 0, 0, 1)."""
    if not np.isfinite(affine).all() or not np.array_equal(affine[3], (0, 0, 0, 1)):
        return False
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    return bool((lengths > 1e-9).all() and (lengths < 1e9).all() and abs(np.linalg.det(affine[:3, :3] / lengths)) > 1e-6)


def n_slices(image: Image, axis: int | None = None) -> int:
    """How many planes ``get_plane`` offers along ``axis`` (default: the image's own). A plane has one.

    Several volumes in one file (4-D) count one after the other: plane ``t * n + s`` is slice s of volume t.
    """
    if not image.is_volume:
        return 1
    return image.shape[_axis(image, axis)] * (image.shape[3] if len(image.shape) == 4 else 1)


def get_plane(image: Image, index: int, axis: int | None = None) -> np.ndarray:
    """(H, W) or (H, W, 3), a copy, turned for display by transposition and flips only.

    With an affine: axial planes have the front of the patient at the top and the patient's right on the left side; coronal
    planes the head at the top and right on the left; sagittal planes the head at the top and the front on the left. An oblique
    volume is treated by its nearest axes. Without an affine, and for single images: as stored.
    """
    if not image.is_volume:
        if index:
            raise UsageError(f"slice {index} of an image that has one plane")
        return np.array(image.array, order="C")
    view, _ = _plane_view(image.array, image, index, axis)
    return np.array(view, order="C")


def put_plane(volume: np.ndarray, plane: np.ndarray, index: int, axis: int | None = None, *, like: Image) -> None:
    """The exact inverse of ``get_plane``: writes ``plane`` into ``volume``, in place.

    volume: an array of the shape of ``like`` (any type, with or without a colour axis); plane: (H, W[, 3]) as displayed.
    """
    if not like.is_volume:
        if index:
            raise UsageError(f"slice {index} of an image that has one plane")
        view = volume
    else:
        view, _ = _plane_view(volume, like, index, axis)
    if view.shape != plane.shape:
        raise GeometryError(f"a plane of shape {plane.shape} does not fit the grid's {view.shape}")
    view[...] = plane


def plane_spacing(image: Image, axis: int | None = None) -> tuple[float, float] | None:
    """Millimetres per pixel (down, across) of what ``get_plane`` returns; None where unknown."""
    if image.spacing is None:
        return None
    if not image.is_volume:
        return image.spacing[0], image.spacing[1]
    _, (row, column) = _plane_view(image.array, image, 0, axis)
    return image.spacing[row], image.spacing[column]


def _axis(image: Image, axis: int | None) -> int:
    axis = image.slice_axis if axis is None else axis
    if axis not in (0, 1, 2):
        raise UsageError(f"a volume has the axes 0, 1 and 2, not {axis}")
    return axis


def _plane_view(array: np.ndarray, image: Image, index: int, axis: int | None) -> tuple[np.ndarray, tuple[int, int]]:
    """A writable view of one plane, and the array axes that became rows and columns."""
    axis = _axis(image, axis)
    if array.shape[: len(image.shape)] != image.shape:
        raise GeometryError(f"an array of shape {array.shape} does not lie on the image's grid {image.shape}")
    if not 0 <= index < n_slices(image, axis):
        raise UsageError(f"slice {index} of {n_slices(image, axis)} along axis {axis}")
    volume, place = divmod(index, image.shape[axis])
    if len(image.shape) == 4:
        array = array[:, :, :, volume]
    first, second = (a for a in (0, 1, 2) if a != axis)
    view = np.moveaxis(array, axis, 0)[place]  # (first, second[, 3])
    if image.affine is None:
        return view, (first, second)
    direction = _orientation(image.affine.tobytes())
    if direction[first][0] < direction[second][0]:  # rows take the later of right, front, head
        view, first, second = view.swapaxes(0, 1), second, first
    # Rows run down from head or front, columns from the patient's right or front: both against the RAS+ axes.
    return view[:: -direction[first][1], :: -direction[second][1]], (first, second)


@lru_cache(maxsize=64)
def _orientation(affine: bytes) -> tuple[tuple[int, int], ...]:
    """For each array axis: the nearest patient axis (0 right, 1 front, 2 head) and +1 or -1 for along or against it."""
    from nibabel.orientations import io_orientation

    found = io_orientation(np.frombuffer(affine).reshape(4, 4))
    return tuple((int(axis), int(flip)) for axis, flip in found)
