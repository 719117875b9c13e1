"""The ellipses as DeScarGAN's released script makes them, step by step, slips included; see docs/made-data.md.

Pure functions of a scene's parameters. Pictures are (n, n) float64, rows first. The script draws on n = 256 pixels; other
canvases get the scene scaled with n / 256, and pictures smaller than about 256 are averages of such a canvas.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from ..metrics.similarity import min_max
from .ellipse_scenes import LARGEST, SIDE, SIGMA, Contour, Floats, Scene, Wave, average, smoothed

THRESHOLD = 0.44195  # on |truth|: hard-coded in the released evaluation


def pictures(scene: Scene, size: int) -> tuple[Floats, Floats, Floats]:
    """(healthy, diseased, truth), each (size, size), as the script saves them: healthy stretched to [-1, 1] by its own
    extremes, diseased as it is, truth = diseased - healthy before the stretching."""
    fine = max(1, round(SIDE / size))
    n = size * fine
    scene = on_canvas(scene, n)
    image = smoothed(drawn(scene, n), beyond="constant")
    ill = deformed(image, *displacement(scene, n))
    image, ill = average(image, fine), average(ill, fine)
    return min_max(image), ill, ill - image


def on_canvas(scene: Scene, n: int) -> Scene:
    """The scene on n x n pixels; centres stay whole. Nothing changes at 256."""
    scale = n / SIDE

    def wave(w: Wave) -> Wave:
        return replace(w, row=round(w.row * scale), column=round(w.column * scale), f=w.f / scale)

    def contour(c: Contour) -> Contour:
        row, column, thickness = round(c.row * scale), round(c.column * scale), max(c.thickness * scale, 1.0)
        return replace(c, row=row, column=column, a=c.a * scale, b=c.b * scale, thickness=thickness)

    return Scene(wave(scene.wave1), wave(scene.wave2), contour(scene.small), contour(scene.large))


@lru_cache(maxsize=4)
def circles(n: int) -> NDArray[np.int32]:
    """(2n, 2n): the largest radius whose sampled circle hits the pixel at offset (row - n, column - n) from its centre.

    The script draws radii 0..499 at 10,000 angles around the centre, and later ones overwrite. Centres are whole pixels, so
    that one table serves them all.
    """
    scale = max(n / SIDE, 1.0)
    theta = np.linspace(0, 2 * np.pi, round(10_000 * scale))
    cosine, sine = np.cos(theta), np.sin(theta)
    table = np.zeros((2 * n, 2 * n), np.int32)
    for r in range(round(500 * scale)):
        i, j = (np.floor(r * c).astype(np.int64) + n for c in (cosine, sine))
        inside = (i >= 0) & (i < 2 * n) & (j >= 0) & (j < 2 * n)
        table[i[inside], j[inside]] = r
    return table


def radii(table: NDArray[np.int32], row: int, column: int) -> NDArray[np.int32]:
    """(n, n): the radius that each pixel gets from the circles around (row, column).

    Points are cut to whole pixels towards zero, so that those up to one pixel beyond the top and left border still draw on it.
    """
    n = len(table) // 2
    r = table[n - row - 1 : 2 * n - row, n - column - 1 : 2 * n - column].copy()
    r[1] = np.maximum(r[0], r[1])
    r[:, 1] = np.maximum(r[:, 0], r[:, 1])
    return r[1:, 1:]


def background(scene: Scene, n: int = SIDE) -> Floats:
    """The sum of both waves, h sin(f r). The script gives the cosine to the rows for wave 2, to the columns for wave 1."""
    return _wave(scene.wave1, circles(n).T) + _wave(scene.wave2, circles(n))


def _wave(wave: Wave, table: NDArray[np.int32]) -> Floats:
    r = radii(table, int(wave.row), int(wave.column))
    return wave.h * np.sin(np.arange(r.max() + 1) * wave.f)[r]


def rings(contour: Contour) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows, columns) of the points of each ring, outermost first."""
    t = np.linspace(0, 2 * np.pi, 1000)
    c, s = np.cos(contour.angle), np.sin(contour.angle)
    out = []
    for k in range(round(contour.thickness)):
        p, q = (contour.a - k) * np.cos(t), (contour.b - k) * np.sin(t)
        out.append(
            (
                np.rint(contour.row + c * p - s * q).astype(np.int64),
                np.rint(contour.column + s * p + c * q).astype(np.int64),
            )
        )
    return out


def drawn(scene: Scene, n: int = SIDE) -> Floats:
    """Background with both contours set to 1. A ring that exceeds the bottom or right border is left out; what exceeds the top
    or left one comes in again at the opposite side."""
    picture = background(scene, n)
    for contour in (scene.small, scene.large):
        for i, j in rings(contour):
            if max(i.max(), j.max()) < n:
                picture[i, j] = 1.0
    return picture


def displacement(scene: Scene, n: int = SIDE) -> tuple[Floats, Floats]:
    """(x, y) displacement, grid units: the negative gradient of a Gaussian at the small ellipse, its largest component 0.1."""
    grid = np.linspace(-1, 1, n)
    x, y = grid - (2 * scene.small.column / n - 1), grid[:, None] - (2 * scene.small.row / n - 1)
    z = np.exp(-(x**2 + y**2) / (2 * SIGMA**2))
    dx, dy = x * z, y * z
    scale = LARGEST / max(np.abs(dx).max(), np.abs(dy).max())
    return scale * dx, scale * dy


def deformed(image: Floats, dx: Floats, dy: Floats, *, align_corners: bool = False) -> Floats:
    """The image looked up, bilinearly, at grid + displacement; zeros beyond the border.

    align_corners: whether -1 and 1 of the grid are the middles of the border pixels, as they are in ``displacement``. The
    script does not say, and so gets its library's False since that became the default: everything is zoomed by n / (n - 1).
    """
    n = len(image)
    grid = np.linspace(-1, 1, n)
    x, y = grid + dx, grid[:, None] + dy
    x, y = ((v + 1) / 2 * (n - 1) if align_corners else ((v + 1) * n - 1) / 2 for v in (x, y))
    return map_coordinates(image, np.stack([y, x]), order=1, mode="grid-constant", cval=0.0)
