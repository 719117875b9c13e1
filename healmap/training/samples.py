"""The picture grid of a run: the same images every time, the same colour scale every time.

Drawn with Pillow: a plotting library needs a second for a grid, and a run draws many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..io.atomic import replacing

AMPLITUDE_SCALE = 0.5  # maps of healing methods are |x - healed| / 2 in [0, 1]; half of that range fills the colours
CELL, GAP, HEAD, SIDE, BAR = 128, 4, 20, 52, 60  # pixels: least picture, space, column heads, row names, colour bar


def write_grid(path: Path, rows: Mapping[str, NDArray[np.float32]], titles: Sequence[str], *, scale: float) -> None:
    """Writes a PNG: one column per image, one row per kind; maps on the scale 0 to ``scale``, with a colour bar.

    rows: name -> (n, C, H, W) in [-1, 1], or (n, H, W) for the map. titles: n column heads.
    """
    from PIL import Image, ImageDraw

    side = next(iter(rows.values())).shape[-1]
    side *= math.ceil(CELL / side)
    width, height = SIDE + len(titles) * (side + GAP) + BAR, HEAD + len(rows) * (side + GAP)
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    for x, title in enumerate(titles):
        draw.text((SIDE + x * (side + GAP), 4), title, fill="black")
    for y, (name, pictures) in enumerate(rows.items()):
        top = HEAD + y * (side + GAP)
        draw.text((4, top + side // 2), name, fill="black")
        for x, picture in enumerate(pictures):
            pixels = in_colours(picture / scale) if name == "map" else _grey(picture)
            cell = Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)
            canvas.paste(cell, (SIDE + x * (side + GAP), top))
        if name == "map":
            left = width - BAR + GAP
            bar = in_colours(np.repeat(np.linspace(1, 0, side)[:, None], 12, axis=1))
            canvas.paste(Image.fromarray(bar), (left, top))
            draw.text((left + 16, top), f"{scale:.3g}", fill="black")
            draw.text((left + 16, top + side - 12), "0", fill="black")
    with replacing(path) as temporary:
        canvas.save(temporary, format="PNG")


def in_colours(amount: NDArray[np.floating]) -> NDArray[np.uint8]:
    """(H, W) with 0 to 1 filling the colours (inferno) -> (H, W, 3). Not a number is shown as the highest."""
    from matplotlib import colormaps

    return colormaps["inferno"](np.clip(np.nan_to_num(amount, nan=1.0), 0, 1), bytes=True)[..., :3]


def _grey(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    pixels = (np.clip(np.nan_to_num(np.moveaxis(picture, 0, -1), nan=1.0), -1, 1) + 1) * 127.5
    return np.broadcast_to(pixels.round().astype(np.uint8), (*pixels.shape[:2], 3))
