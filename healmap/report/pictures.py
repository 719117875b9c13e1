"""Picture rows: input, healed, signed difference, map, masks. Every tile of a page shares its column's one colour scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..detection.overlay import CONTOUR, LARGEST, Picture, drawn_size, enlarge, outline, palette
from .page import Evaluation, png

TRUTH = np.array([120, 230, 120], np.uint8)
SIDES = (256, LARGEST)  # pixels of a tile's longer side: enough that contours stay thin
TITLES = {"input": "input", "healed": "healed", "difference": "difference", "map": "map", "masks": "masks"}


def grey_tile(values: NDArray[Any], sides: tuple[int, int] = SIDES) -> Picture:
    """(H, W) in [0, 1]. sides: the least and the most pixels of the longer side."""
    drawn = enlarge(np.clip(values.astype(np.float32), 0, 1), drawn_size(values.shape[0], values.shape[1], *sides))
    return np.repeat(np.rint(255 * drawn).astype(np.uint8)[..., None], 3, axis=2)


def difference_tile(values: NDArray[Any], top: float) -> Picture:
    """(H, W) signed, in map units: white is no difference, red a brighter image, full colour at ±top."""
    from .drawings import diverging

    drawn = enlarge(values.astype(np.float32), drawn_size(values.shape[0], values.shape[1], *SIDES))
    return np.rint(255 * diverging()(np.clip(drawn / (2 * top) + 0.5, 0, 1))[..., :3]).astype(np.uint8)


def map_tile(values: NDArray[Any], top: float, sides: tuple[int, int] = SIDES) -> Picture:
    """(H, W) >= 0: the whole scale, without the image beneath."""
    drawn = enlarge(values.astype(np.float32), drawn_size(values.shape[0], values.shape[1], *sides))
    share = np.clip(drawn / top, 0, 1)
    return np.rint(255 * palette()[np.rint(255 * share).astype(np.intp)]).astype(np.uint8)


def outlined(picture: Picture, mask: NDArray[np.bool_] | None, colour: NDArray[np.uint8]) -> Picture:
    """The picture with the outline of a mask of any size."""
    return picture if mask is None else outline(picture, enlarge(mask, (picture.shape[0], picture.shape[1])), colour)


def mask_tile(image: NDArray[Any], truth: NDArray[np.bool_] | None, mask: NDArray[np.bool_] | None) -> Picture:
    """The image with both outlines: green the annotation, cyan what the threshold marks."""
    return outlined(outlined(grey_tile(image), truth, TRUTH), mask, CONTOUR)


def tiles(evaluation: Evaluation, number: int) -> dict[str, Picture]:
    """The tiles of one case by column; only what the method gives."""
    found = {
        name: evaluation.pictures.get(f"{number}/{name}") for name in ("input", "healed", "difference", "map", "truth", "mask")
    }
    assert found["input"] is not None
    made = {"input": grey_tile(found["input"])}
    if found["healed"] is not None:
        made["healed"] = grey_tile(found["healed"])
    if found["difference"] is not None:
        made["difference"] = difference_tile(found["difference"], evaluation.top)
    if found["map"] is not None:
        made["map"] = map_tile(found["map"], evaluation.top)
    if found["truth"] is not None or found["mask"] is not None:
        made["masks"] = mask_tile(found["input"], found["truth"], found["mask"])
    return made


def case_rows(evaluation: Evaluation, role: str) -> list[dict[str, Any]]:
    """The chosen cases of a role, ready for a template."""
    return [_row(evaluation, row) for row in evaluation.rows if role in row["roles"]]


def _row(evaluation: Evaluation, row: Mapping[str, Any]) -> dict[str, Any]:
    shown = tiles(evaluation, row["number"])
    return {**row, "tiles": [{"title": TITLES[name], "src": png(picture)} for name, picture in shown.items()]}
