"""Maps laid over images. One colour scale for a whole set, in the map's own units; never stretched image by image.

An image's grey values are drawn over the range that the method saw (the run's normalisation), for the same reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .result import CaseResult

if TYPE_CHECKING:
    from ..data.preprocess import Preprocessing
    from .predictor import Predictor

Picture = NDArray[np.uint8]
CONTOUR = np.array([64, 224, 255], np.uint8)  # cyan: absent from the colour scale
SMALLEST, LARGEST = 256, 768  # side lengths at which pictures are drawn
SHEET = 12  # slices of a volume shown


@lru_cache(maxsize=1)
def palette() -> NDArray[np.float32]:
    """(256, 3) in [0, 1], dark to bright: matplotlib's inferno, even in lightness and readable by colour-blind eyes."""
    from matplotlib import colormaps

    return np.asarray(colormaps["inferno"](np.linspace(0, 1, 256))[:, :3], np.float32)


def grey(plane: NDArray[Any], stats: Mapping[str, Any], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """(H, W[, 3]) in raw units -> (H, W) in [0, 1] over the range of the run's normalisation."""
    centre, half = preprocessing.limits(stats)
    values = np.nan_to_num(plane.astype(np.float32), nan=centre - half)
    values = np.clip((values - np.float32(centre)) / np.float32(half), -1, 1) / 2 + 0.5
    return values.mean(axis=-1) if values.ndim == 3 else values


def blend(base: NDArray[np.float32], anomaly_map: NDArray[np.float32], top: float) -> Picture:
    """(H, W) grey in [0, 1] under a map (H, W): colour and opacity grow with map / top, full at ``top`` and above."""
    share = np.clip(anomaly_map / np.float32(top), 0, 1)
    colour = palette()[np.rint(share * 255).astype(np.intp)]
    # Opacity rises faster than colour, so that the dark end of the scale does not merely darken the image.
    opacity = np.clip(share * 1.6, 0, 0.8)[..., None]
    return np.rint(255 * ((1 - opacity) * base[..., None] + opacity * colour)).astype(np.uint8)


def outline(picture: Picture, mask: NDArray[np.bool_], colour: NDArray[np.uint8] = CONTOUR) -> Picture:
    """The picture with the inner edge of the mask drawn in, about a hundredth of the picture wide."""
    wide = max(1, round(max(mask.shape) / 128))
    edge = mask & ~ndimage.binary_erosion(mask, iterations=wide, border_value=0)
    out = picture.copy()
    out[edge] = colour
    return out


def enlarge(array: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """(H, W) to another size: float bilinear, masks nearest."""
    from PIL import Image

    size = (shape[1], shape[0])
    if array.dtype == bool:
        return np.array(Image.fromarray(array.view(np.uint8)).resize(size, Image.Resampling.NEAREST)).astype(bool)
    return np.array(Image.fromarray(np.ascontiguousarray(array, np.float32)).resize(size, Image.Resampling.BILINEAR))


def drawn_size(height: int, width: int, smallest: int = SMALLEST, largest: int = LARGEST) -> tuple[int, int]:
    """The size at which a plane is drawn: enlarged by a whole factor, or shrunk, within the limits."""
    longest = max(height, width)
    factor: float = -(-smallest // longest) if longest < smallest else min(1.0, largest / longest)
    return max(1, round(height * factor)), max(1, round(width * factor))


def panel(
    base: NDArray[np.float32],
    anomaly_map: NDArray[np.float32] | None,
    mask: NDArray[np.bool_] | None,
    top: float,
    shape: tuple[int, int],
) -> Picture:
    """One tile at ``shape``: the grey image, the map over it and the mask's outline, as far as they are given."""
    base = enlarge(base, shape)
    if anomaly_map is None:
        picture = np.repeat(np.rint(255 * base).astype(np.uint8)[..., None], 3, axis=2)
    else:
        picture = blend(base, enlarge(anomaly_map, shape), top)
    return picture if mask is None else outline(picture, enlarge(mask, shape))


@lru_cache(maxsize=8)
def colour_bar(height: int, top: float, threshold: float | None = None, width: int = 74) -> Picture:
    """A vertical scale from 0 to ``top`` in map units; the pixel threshold is marked."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", (width, height), (0, 0, 0))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(12)
    y0, y1 = 12, height - 13
    colours = np.rint(255 * palette()[np.linspace(255, 0, y1 - y0 + 1).astype(int)]).astype(np.uint8)
    picture.paste(Image.fromarray(np.repeat(colours[:, None], 14, axis=1)), (8, y0))

    def mark(value: float, colour: tuple[int, int, int]) -> None:
        y = y1 - (y1 - y0) * min(value / top, 1.0)
        draw.line([(22, y), (27, y)], fill=colour)
        draw.text((30, y), f"{value:.3g}", fill=colour, font=font, anchor="lm")

    far = [v for v in (0.0, top / 2, top) if threshold is None or abs(v - threshold) > 0.09 * top]
    for value in far:
        mark(value, (220, 220, 220))
    if threshold is not None and threshold <= top:
        mark(threshold, (int(CONTOUR[0]), int(CONTOUR[1]), int(CONTOUR[2])))
    bar = np.array(picture)
    bar.setflags(write=False)  # shared by every picture of the set
    return bar


def case_picture(result: CaseResult, predictor: Predictor) -> Picture:
    """Input beside overlay with its colour bar; of a volume a sheet of evenly spaced overlays, the highest score among them.

    Without a map: input beside healed plane, as far as there is one; of a volume the slices as they are.
    """
    from ..data.case import plane_axis, plane_of, stats_of

    image, preprocessing, thresholds = result.image, predictor.preprocessing, predictor.thresholds
    stats, axis = stats_of(image, preprocessing), plane_axis(image, preprocessing.config.axis)

    def plain(plane: NDArray[Any]) -> Picture:
        return panel(grey(plane, stats, preprocessing), None, None, thresholds.top, drawn_size(*plane.shape[:2]))

    def tile(index: int, smallest: int, over: bool = True) -> Picture:
        plane, _ = plane_of(image, index, axis)
        values = _plane(result.anomaly_map, result, index, axis) if over else None
        mask = _plane(result.mask, result, index, axis) if over else None
        shape = drawn_size(plane.shape[0], plane.shape[1], smallest)
        return panel(grey(plane, stats, preprocessing), values, mask, thresholds.top, shape)

    if not image.is_volume and result.anomaly_map is None:
        tiles = [[plain(plane) for plane in (plane_of(image, 0, axis)[0], result.healed) if plane is not None]]
    elif not image.is_volume:
        tiles = [[tile(0, SMALLEST, over=False), tile(0, SMALLEST)]]
    else:
        chosen = shown_slices(result.slices)
        columns = min(4, len(chosen))
        tiles = [[tile(i, 160) for i in chosen[k : k + columns]] for k in range(0, len(chosen), columns)]
        tiles[-1] += [np.zeros_like(tiles[0][0])] * (columns - len(tiles[-1]))
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in tiles], axis=0)
    if result.anomaly_map is None:
        return sheet
    bar = colour_bar(max(len(sheet), 80), thresholds.top, thresholds.pixel.value)
    sheet = np.pad(sheet, ((0, len(bar) - len(sheet)), (0, 0), (0, 0)))
    return np.concatenate([sheet, bar], axis=1)


def shown_slices(slices: Sequence[tuple[int, float]], count: int = SHEET) -> list[int]:
    """At most ``count`` slice indices, evenly spaced, the one with the highest score among them."""
    if len(slices) <= count:
        return [index for index, _ in slices]
    places = np.linspace(0, len(slices) - 1, count).round().astype(int)
    best = max(range(len(slices)), key=lambda k: slices[k][1])
    places[np.argmin(np.abs(places - best))] = best
    return [slices[k][0] for k in places]


def _plane(volume: NDArray[Any] | None, result: CaseResult, index: int, axis: int | None) -> NDArray[Any] | None:
    from ..io.image import Image, get_plane

    if volume is None or not result.image.is_volume:
        return volume
    return get_plane(Image(volume, result.image.kind, result.image.geometry, result.image.slice_axis), index, axis)
