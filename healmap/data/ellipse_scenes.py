"""DeScarGAN's synthetic scenes: two ellipse contours on two circular waves; disease pulls the small ellipse together.

A scene is defined on the plane, in pixels of 256 x 256 whatever the picture's size: rows and columns 0..255 are the middles of
these pixels. ``fair_picture`` looks the scene up where the picture's pixels lie, healthy at p, diseased at p + u(p). So both
classes are sampled alike, and no interpolation makes one of them smoother. How the released script draws:
:mod:`healmap.data.published_ellipses`. Numbers: DeScarGAN, supplement, Table 1, and the script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

Floats = NDArray[np.float64]
SIDE = 256
HALF = (SIDE - 1) / 2  # pixels per unit of the grid [-1, 1]
CENTRES = (50, 200)  # whole pixels 50..199: the script; U(50, 200): the paper
APART = 120.0  # the centres' least distance: the script alone, which so keeps the contours from meeting
SIGMA = 0.19  # of the Gaussian, grid units
LARGEST = 0.1  # component of the displacement, grid units: 12.75 pixels
TOP = 0.8  # of |wave 1 + wave 2|, each at most 0.4 high


@dataclass(frozen=True)
class Wave:
    """h sin(f t) on the circle of radius t pixels around (row, column)."""

    row: float
    column: float
    h: float
    f: float


@dataclass(frozen=True)
class Contour:
    """The edge, of value 1, of an ellipse of half axes a > b, turned by ``angle`` from the rows' direction. Pixels, radians.

    thickness: inwards from a and b.
    """

    row: float
    column: float
    a: float
    b: float
    angle: float
    thickness: float

    def reach(self, inset: float = 0.0) -> tuple[float, float]:
        """How far it extends from its centre along rows and columns; ``inset``: that much further in."""
        c, s, a, b = math.cos(self.angle), math.sin(self.angle), self.a - inset, self.b - inset
        return math.hypot(a * c, b * s), math.hypot(a * s, b * c)


@dataclass(frozen=True)
class Scene:
    """wave2 shares the centre of the large ellipse."""

    wave1: Wave
    wave2: Wave
    small: Contour
    large: Contour


def draw_scene(rng: np.random.Generator, *, fair: bool = True) -> Scene:
    """A scene that is accepted. Fair: wave 1 has a centre of its own, and contours lie wholly inside the picture. Published:
    wave 1 is centred at the mirror image of the small ellipse, and contours may leave the picture at the top and left.
    """
    while True:  # one attempt in 7 is accepted, in the fair variant one in 10
        scene = _attempt(rng, fair)
        small, large = scene.small, scene.large
        distance = math.hypot(small.row - large.row, small.column - large.column)
        if distance <= max(APART, small.a + large.a):  # the circles around the ellipses do not meet, so neither do these
            continue
        if all(_inside(c) if fair else _kept(c) for c in (small, large)):
            return scene


def _attempt(rng: np.random.Generator, fair: bool) -> Scene:
    f1, f2 = rng.uniform(0.2, 0.35), rng.uniform(0.35, 0.5)
    h1, h2 = rng.uniform(0.2, 0.4, 2)
    u1, v1, u2, v2 = (int(c) for c in rng.integers(*CENTRES, 4))
    small = _contour(rng, u1, v1, 40.0, 20.0)
    large = _contour(rng, u2, v2, 70.0, 35.0)
    row, column = (int(c) for c in rng.integers(*CENTRES, 2)) if fair else (v1, u1)
    return Scene(Wave(row, column, h1, f1), Wave(u2, v2, h2, f2), small, large)


def _contour(rng: np.random.Generator, row: int, column: int, a: float, b: float) -> Contour:
    angle, thickness = rng.uniform(0, 2 * np.pi), max(rng.normal(5, 0.7), 1.0)
    return Contour(row, column, rng.normal(a, 1), rng.normal(b, 1), angle, thickness)


def _inside(contour: Contour) -> bool:
    middle = (contour.row, contour.column)
    return all(m - r >= 0 and m + r <= SIDE - 1 for m, r in zip(middle, contour.reach(), strict=True))


def _kept(contour: Contour) -> bool:
    middle = (contour.row, contour.column)
    innermost = contour.reach(round(contour.thickness) - 1)
    return all(round(m + r) < SIDE for m, r in zip(middle, innermost, strict=True))


def displaced(scene: Scene, row: Floats, column: Floats) -> tuple[Floats, Floats]:
    """p + u(p): where a diseased picture looks, for points p. Away from the small ellipse's centre, at a distance of rho pixels
    by 0.1 (rho / sigma) exp(1/2 - rho^2 / (2 sigma^2)) grid units, at most 0.1; so the ellipse shrinks. Never folds."""
    sigma = SIGMA * HALF
    y, x = row - scene.small.row, column - scene.small.column
    z = LARGEST * HALF / sigma * np.exp(0.5 - x**2 / (2 * sigma**2)) * np.exp(-(y**2) / (2 * sigma**2))
    return row + z * y, column + z * x


def fair_picture(scene: Scene, size: int, *, diseased: bool) -> Floats:
    """(size, size), rows first: waves, 1 on the contours, smoothed, and brought from [-0.8, 1] to [-1, 1] by one map for all.

    Waves are looked up at the pixels' middles: averaged there, they would lose height where disease packs them together, and
    the least value would tell the class. A contour counts with the share of the pixel that it covers.
    """
    row, column = _points(size, slice(0, size)), _points(size, slice(0, size))
    looked_at = displaced(scene, row[:, None], column) if diseased else (row[:, None], column)
    value = _wave(scene.wave1, *looked_at) + _wave(scene.wave2, *looked_at)
    for contour in (scene.small, scene.large):
        window, cover = _cover(scene, contour, size, diseased)
        value[window] += cover * (1 - value[window])
    return (smoothed(value, size) + TOP) * (2 / (1 + TOP)) - 1


def _points(size: int, pixels: slice, fine: int = 1) -> Floats:
    """Places on the plane of ``fine`` samples in each of these pixels of a picture."""
    k = np.arange(pixels.start * fine, pixels.stop * fine)
    return (k + 0.5) * (SIDE / (size * fine)) - 0.5


def _wave(wave: Wave, row: Floats, column: Floats) -> Floats:
    t = np.sqrt((row - wave.row) ** 2 + (column - wave.column) ** 2)
    t *= wave.f
    return wave.h * np.sin(t, out=t)


def _cover(scene: Scene, contour: Contour, size: int, diseased: bool) -> tuple[tuple[slice, slice], Floats]:
    """(where the contour may be, the share of each pixel there that it covers). At least a pixel thick."""
    fine, unit = max(2, round(2 * SIDE / size)), SIDE / size
    margin = LARGEST * HALF + unit  # disease moves nothing further
    rows, columns = (
        slice(max(math.floor((middle - r - margin) / unit), 0), min(math.ceil((middle + r + margin) / unit), size))
        for middle, r in zip((contour.row, contour.column), contour.reach(), strict=True)
    )
    row, column = _points(size, rows, fine)[:, None], _points(size, columns, fine)
    if diseased:
        row, column = displaced(scene, row, column)
    y, x, c, s = row - contour.row, column - contour.column, math.cos(contour.angle), math.sin(contour.angle)
    p, q = (c * y + s * x) ** 2, (c * x - s * y) ** 2
    # The script's lines of one pixel reach half a pixel to either side.
    a, b, g = contour.a + 0.5, contour.b + 0.5, max(contour.thickness, unit)
    on = (p / a**2 + q / b**2 <= 1) & (p / (a - g) ** 2 + q / (b - g) ** 2 >= 1)
    return (rows, columns), average(on, fine)


def average(picture: NDArray[Any], fine: int) -> Floats:
    """Means of squares of fine x fine."""
    height, width = (n // fine for n in picture.shape)
    return picture.reshape(height, fine, width, fine).mean(axis=(1, 3), dtype=np.float64)


def smoothing(size: int = SIDE) -> tuple[float, int]:
    """(w, times): the script's 3 x 3 Gaussian of sigma 2 is [w, 1 - 2w, w] along both axes; here its variance follows the size
    of the picture, and larger pictures need it several times."""
    edge = math.exp(-1 / 8)
    scale, times = (size / SIDE) ** 2, math.ceil((size / SIDE) ** 2)
    return edge / (1 + 2 * edge) * scale / times, times


def smoothed(picture: Floats, size: int = SIDE, beyond: str = "reflect") -> Floats:
    """beyond: what is assumed outside, "reflect", or "constant" for the script's zeros."""
    w, times = smoothing(size)
    for axis in (0, 1) * times:
        picture = correlate1d(picture, [w, 1 - 2 * w, w], axis=axis, mode=beyond)
    return picture
