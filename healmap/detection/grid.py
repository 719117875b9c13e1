"""One picture of many: a row per image, a column per target domain, cells that change nothing framed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CELL, GAP, HEAD, SIDE = 112, 4, 18, 96  # pixels: least picture, space, column heads, row names
FRAME = (214, 40, 40)
LETTERS = 14  # of a row's name


@dataclass(frozen=True, eq=False)
class Cell:
    """image: (C, S, S) in [-1, 1]. framed: the image's own domain."""

    image: NDArray[np.float32]
    framed: bool = False


def write_grid(titles: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> NDArray[np.uint8]:
    """(H, W, 3). titles: one per column. rows: name and cells; all images of one size."""
    from PIL import Image, ImageDraw

    side = rows[0][1][0].image.shape[-1]
    side *= math.ceil(CELL / side)
    canvas = Image.new("RGB", (SIDE + len(titles) * (side + GAP), HEAD + len(rows) * (side + GAP)), "white")
    draw = ImageDraw.Draw(canvas)
    for x, title in enumerate(titles):
        draw.text((SIDE + x * (side + GAP) + 2, 3), title, fill="black")
    for y, (name, cells) in enumerate(rows):
        top = HEAD + y * (side + GAP)
        draw.text((4, top + side // 2 - 6), name if len(name) <= LETTERS else name[: LETTERS - 1] + "…", fill="black")
        for x, cell in enumerate(cells):
            left = SIDE + x * (side + GAP)
            canvas.paste(Image.fromarray(_pixels(cell.image)).resize((side, side), Image.Resampling.NEAREST), (left, top))
            if cell.framed:
                draw.rectangle((left, top, left + side - 1, top + side - 1), outline=FRAME, width=3)
    return np.asarray(canvas)


def _pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    pixels = ((np.clip(np.moveaxis(image, 0, -1), -1, 1) + 1) * 127.5).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
