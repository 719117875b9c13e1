"""One case: a file's planes with the statistics that they share, and the lesion mask that belongs to them.

Dataset, check and prediction all look at files through these functions, so that they cannot disagree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, UsageError
from ..io.image import Image, get_plane, n_slices
from ..io.read import read_image
from ..types import DISEASED, HEALTHY, UNKNOWN
from .faults import boxes
from .preprocess import Preprocessing, Stats
from .table import Row, SliceRow, Table


def read_case(path: Path) -> Image:
    """The image or volume at ``path``: a file, or a folder holding one DICOM series; see :func:`healmap.io.read.read_image`."""
    return read_image(path)


def plane_axis(image: Image, axis: int) -> int | None:
    """The array axis along which planes are taken: ``axis`` for NIfTI; the order of frames for DICOM and TIFF stacks."""
    if not image.is_volume:
        return None
    return axis if image.kind == "nifti" else image.slice_axis


def stats_of(image: Image, preprocessing: Preprocessing) -> Stats:
    """``case_stats`` of all of the image."""
    return preprocessing.case_stats(image.array, window=image.window, padding=image.padding, colour=image.colour)


def plane_of(image: Image, index: int, axis: int | None) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """(plane (H, W[, 3]) in display orientation, its padding (H, W) or None)."""
    plane = get_plane(image, index, axis)
    padding = None
    if image.padding is not None:
        padding = get_plane(_companion(image, image.padding), index, axis)
    return plane, padding


def prepare_plane(image: Image, index: int, axis: int | None, stats: Stats, preprocessing: Preprocessing) -> NDArray[Any]:
    """The plane on the working grid, in its own kind."""
    plane, padding = plane_of(image, index, axis)
    return preprocessing.prepare(plane, stats, padding)


def is_background(plane: NDArray[Any], padding: NDArray[np.bool_] | None, stats: Stats) -> bool:
    """Whether nothing in the plane rises above the case's foreground threshold."""
    if padding is not None:
        plane = plane[~padding]
    return not bool((plane > stats["threshold"]).any())


def read_mask(table: Table, row: Row, image: Image) -> NDArray[np.bool_] | None:
    """The lesion mask in the image's own array shape, True = lesion: from the mask file (not zero) or from boxes; else None.

    Raises:
        GeometryError: the mask has another size, or lies elsewhere in the patient.
    """
    path = table.mask_file(row)
    if path is None:
        return filled_boxes(row.box, image) if row.box else None
    mask = read_case(path)
    array = mask.array.any(-1) if mask.colour else mask.array
    if array.shape != image.shape:
        sizes = f"the mask is {_by(array.shape)}, the image {_by(image.shape)}"
        raise GeometryError(sizes, where=row.mask, hint="store both on one grid")
    if image.is_volume and image.affine is not None and mask.affine is not None:
        corners = np.array([[i, j, k, 1] for i in (0, 1) for j in (0, 1) for k in (0, 1)], float)
        corners[:, :3] *= np.array(image.shape[:3]) - 1
        gap = float(np.abs(corners @ (image.affine - mask.affine).T).max())
        if gap > 0.5 * min(image.spacing or (1.0,)):
            off = f"the mask lies up to {gap:.3g} mm away from the image"
            raise GeometryError(off, where=row.mask, hint="store both on one grid")
    with np.errstate(invalid="ignore"):
        return (np.nan_to_num(array) if array.dtype.kind == "f" else array) != 0


def filled_boxes(text: str, image: Image) -> NDArray[np.bool_]:
    """True for pixels whose centre lies in a box. Boxes belong to planes.

    Raises:
        UsageError: the image is a volume, or a box lies outside it.
    """
    if image.is_volume:
        raise UsageError("a box cannot mark a volume", hint="give a mask")
    height, width = image.shape
    out = np.zeros((height, width), np.bool_)
    for x, y, w, h in boxes(text):
        # Pixel i covers [i, i + 1); its centre is i + 0.5. A box thinner than a pixel still marks the one that it lies in.
        x0, y0 = max(math.ceil(x - 0.5), 0), max(math.ceil(y - 0.5), 0)
        x1, y1 = max(math.ceil(x + w - 0.5), x0 + 1), max(math.ceil(y + h - 0.5), y0 + 1)
        if x0 >= width or y0 >= height or x + w <= 0 or y + h <= 0:
            outside = f"box {x:g},{y:g},{w:g},{h:g} lies outside the {_by((height, width))} image"
            raise UsageError(outside, hint="boxes are x,y,width,height")
        out[y0:y1, x0:x1] = True
    return out


def mask_plane(mask: NDArray[np.bool_], image: Image, index: int, axis: int | None) -> NDArray[np.bool_]:
    """The plane (H, W) of a mask from :func:`read_mask`, turned like the image's."""
    return get_plane(_companion(image, mask), index, axis)


def choose_planes(
    table: Table, row: Row, image: Image, axis: int | None, stats: Stats, mask: NDArray[np.bool_] | None
) -> tuple[list[SliceRow], int]:
    """(the planes of a case that are used, with label and planes to the lesion; how many were left out as background).

    A plane image: one plane with the row's label. A volume: what ``slices.csv`` lists, when it is about this axis (the third of
    a NIfTI file, the frames of others); else every plane that is not background, ``diseased`` where the mask marks a voxel and
    ``healthy`` where it marks none; without a mask ``healthy`` in a healthy volume and ``unknown`` otherwise.

    Raises:
        UsageError: ``slices.csv`` lists a plane that the volume lacks, or contradicts the mask or a healthy volume.
    """
    if not image.is_volume:
        return [SliceRow(0, row.label)], 0
    count = n_slices(image, axis)
    marked = [bool(mask_plane(mask, image, i, axis).any()) for i in range(count)] if mask is not None else None
    listed = table.slices_of(row) if axis == image_default_axis(image) else ()
    if listed:
        _agree(listed, row, count, marked)
        return list(listed), 0
    used, left_out = [], 0
    near = [i for i, m in enumerate(marked or ()) if m]
    for i in range(count):
        if not (marked and marked[i]) and is_background(*plane_of(image, i, axis), stats):
            left_out += 1
            continue
        if marked is not None:
            label = DISEASED if marked[i] else HEALTHY
        else:
            label = HEALTHY if row.label == HEALTHY else UNKNOWN
        used.append(SliceRow(i, label, row.split, min((abs(i - n) for n in near), default=None)))
    return used, left_out


def image_default_axis(image: Image) -> int:
    """The axis that ``slices.csv`` counts along."""
    return 2 if image.kind == "nifti" else (image.slice_axis or 0)


def _agree(listed: Sequence[SliceRow], row: Row, count: int, marked: list[bool] | None) -> None:
    for plane in listed:
        said = f"slices.csv line {plane.line} calls slice {plane.index} {plane.label}"
        if plane.index >= count:
            raise UsageError(f"{said}, but there are {count} slices", hint="slices count from 0")
        if row.label == HEALTHY and plane.label == DISEASED:
            raise UsageError(f"{said}, but the table calls the volume healthy", hint="decide for one")
        if marked is not None and plane.label == HEALTHY and marked[plane.index]:
            raise UsageError(f"{said}, but its mask marks voxels", hint="correct one of them")


def _companion(image: Image, array: NDArray[Any]) -> Image:
    """Another array on the image's grid, as an image, so that it is turned the same way."""
    return Image(array, image.kind, image.geometry, image.slice_axis)


def _by(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
