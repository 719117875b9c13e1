"""Phantoms: made-up brain-like slices with soft lesions, exact masks, and the healthy twin of every diseased slice.

They look like FLAIR images as a child would draw them: bright scalp, dark skull, grey and white matter, dark ventricles. They
serve the demonstration and the tests. Nothing follows from them about real images.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pil
from scipy.ndimage import binary_dilation, gaussian_filter, label

from ..errors import UsageError
from ..io.atomic import write_bytes, write_text
from ..types import DISEASED, HEALTHY, SPLITS
from .split import split_table
from .table import COLUMNS, TABLE_NAME, Row, Table, write_table

Floats = NDArray[np.float64]
EXTRA = ("class", "slice", "level", "slices_to_tumour", "tumour_pixels", "twin")


@dataclass(frozen=True, kw_only=True)
class Look:
    """What lesions look like. Lengths as shares of half the image side, intensities as shares of full white.

    radius: of the lesion at its thickest. contrast: how much brighter (or darker) its middle is. dark: share of dark lesions.
    diseased: share of patients with a lesion. noise: of the finest grain.
    """

    radius: tuple[float, float] = (0.15, 0.32)
    contrast: tuple[float, float] = (0.28, 0.50)
    dark: float = 0.25
    diseased: float = 0.7
    noise: float = 0.018


def make_phantoms(
    out: Path | str,
    patients: int = 60,
    size: int = 64,
    seed: int = 0,
    slices: tuple[int, int] = (6, 8),
    look: Look | None = None,
    pairs: bool = True,
) -> Table:
    """Writes ``labels.csv``, ``images/``, ``masks/``, ``twins/`` and ``README.md`` to ``out``; equal arguments, equal bytes.

    Images are 8-bit PNG, size x size. Some patients are healthy; the others have diseased and healthy slices. Splits are
    70/10/20 % of the patients, stratified. ``slices``: fewest and most per patient. The column ``twin`` names the healthy twin
    of a diseased image: the same slice of the same patient without the lesion. ``pairs=False``: not in the training split.

    Raises:
        UsageError: ``out`` holds other files, or a number makes no sense.
    """
    out, look = Path(out), look or Look()
    if patients < 1 or size < 16 or not 1 <= slices[0] <= slices[1]:
        asked = f"{patients} patients with {slices} slices of {size} pixels"
        raise UsageError(f"cannot make {asked}", hint="at least 1 patient and 16 pixels")
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / TABLE_NAME).is_file())):
        raise UsageError("the folder is not empty and holds no phantoms", where=str(out), hint="name a new folder")
    rows = []
    ill = _ill(patients, look.diseased, seed)
    for number in range(patients):
        for one in make_patient(number, size, seed, slices, look, diseased=bool(ill[number])):
            rows.append(_write(out, one))
    table = split_table(Table(out, tuple(rows), (*COLUMNS, *EXTRA), TABLE_NAME), seed=seed)
    if not pairs:
        table = _without_training_twins(table)
    write_table(table, out / TABLE_NAME)
    write_text(out / "README.md", _readme(table, patients, size, seed))
    return table


@dataclass(frozen=True)
class Slice:
    """One made slice: uint8 (S, S) images, bool (S, S) mask; ``twin`` equals ``image`` when healthy."""

    patient: str
    index: int
    level: float
    image: NDArray[np.uint8]
    twin: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    kind: str
    to_tumour: int | None


def make_patient(number: int, size: int, seed: int, slices: tuple[int, int], look: Look, *, diseased: bool) -> list[Slice]:
    """All slices of one patient, from the base to the vertex."""
    rng = np.random.default_rng([seed, 1, number])
    count = int(rng.integers(slices[0], slices[1] + 1))
    levels = np.linspace(-0.72, 0.72, count) + rng.uniform(-0.05, 0.05)
    head = _Head.draw(rng)
    noise = _noise(rng, count, size)
    healthy = [head.paint(size, level, {name: field[k] for name, field in noise.items()}) for k, level in enumerate(levels)]
    weights, core, kind = np.zeros((count, size, size)), np.zeros((count, size, size)), "none"
    if diseased:
        brains = [brain for _, brain in healthy]
        weights, core, kind = _lesion(np.random.default_rng([seed, 2, number]), size, levels, brains, look)
    grain = np.random.default_rng([seed, 3, number]).normal(0, look.noise, (count, size, size))
    masks = weights > 0.3
    ill = np.flatnonzero(masks.any((1, 2)))
    out = []
    for k in range(count):
        clean = healthy[k][0]
        both = np.stack([clean, clean + core[k]])
        twin, image = np.rint(255 * np.clip(head.gain * both + grain[k], 0, 1)).astype(np.uint8)
        near = int(np.abs(ill - k).min()) if len(ill) else None
        name, level = f"phantom_{number:03d}", round(float(levels[k]), 3)
        out.append(Slice(name, k, level, image, twin, masks[k], kind if masks[k].any() else "none", near))
    return out


def _ill(patients: int, share: float, seed: int) -> NDArray[np.bool_]:
    ill = np.zeros(patients, np.bool_)
    ill[np.random.default_rng([seed, 0]).permutation(patients)[: round(share * patients)]] = True
    return ill


def _step(x: Floats, width: float) -> Floats:
    """0 below -width, 1 above width, smooth between: compact, so that outside a lesion nothing at all changes."""
    t = np.clip(x / (2 * width) + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _smooth(rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]) -> Floats:
    """Gaussian noise, smoothed, with mean 0 and standard deviation 1."""
    field = gaussian_filter(rng.normal(size=shape), sigma, mode="reflect")
    return (field - field.mean()) / field.std()


def _noise(rng: np.random.Generator, count: int, size: int) -> dict[str, Floats]:
    """Random fields of a patient, alike in neighbouring slices."""
    shape, s = (count, size, size), size / 64
    return {
        "fold": _smooth(rng, shape, (0.8, 2.2 * s, 2.2 * s)),
        "texture": _smooth(rng, shape, (0.5, 1.1 * s, 1.1 * s)),
        "bias": _smooth(rng, shape, (2.0, 16 * s, 16 * s)),
    }


@dataclass(frozen=True)
class _Head:
    """A patient's anatomy: shares of half the side, radians, shares of white."""

    axes: tuple[float, float]  # half width, half length of the head at its widest slice
    centre: tuple[float, float]
    turn: float
    waves: Floats  # (3, 2) amplitude and phase of the outline's irregularity
    scalp: float  # thickness
    skull: float
    ventricle: float
    grey: float
    white: float
    fluid: float
    fat: float
    texture: float
    bias: float
    gain: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Head:
        u = rng.uniform
        white = u(0.36, 0.44)
        return cls(
            axes=(u(0.66, 0.76), u(0.82, 0.92)),
            centre=(u(-0.05, 0.05), u(-0.04, 0.04)),
            turn=u(-0.12, 0.12),
            waves=np.stack([u(0, 0.018, 3), u(0, 2 * np.pi, 3)], 1),
            scalp=u(0.05, 0.085),
            skull=u(0.06, 0.10),
            ventricle=u(0.75, 1.3),
            white=white,
            grey=white + u(0.08, 0.15),
            fluid=u(0.06, 0.14),
            fat=u(0.72, 0.95),
            texture=u(0.014, 0.028),
            bias=u(0.02, 0.06),
            gain=u(0.8, 1.08),
        )

    def paint(self, size: int, level: float, noise: Mapping[str, Floats]) -> tuple[Floats, Floats]:
        """(intensities (S, S), brain (S, S) in [0, 1]) of the slice at ``level`` in [-1, 1], the base to the vertex."""
        x, y, rho, theta = self.polar(size, level)
        soft = 1.2 / size
        inner = 1 - self.scalp - self.skull
        fold = noise["fold"]
        head = _step(1 - rho, soft)
        skull = _step(1 - self.scalp * (1 + 0.25 * np.sin(theta + self.waves[0, 1])) - rho, soft)
        cavity = _step(inner - rho, soft)
        brain = _step(inner - 0.025 - 0.03 * np.clip(fold, 0, 2) - rho, 1.5 * soft)  # sulci let fluid in
        white = _step(inner - 0.16 - 0.07 * fold - rho, 2 * soft)
        tissue = self.grey + (self.white - self.grey) * white
        tissue = tissue + (self.grey - self.white) * 0.8 * white * self.nuclei(x, y, level, soft)
        tissue = tissue * (1 + self.bias * noise["bias"]) + self.texture * noise["texture"]
        ventricles = self.ventricles(x, y, level, soft)
        falx = np.exp(-((x / 0.012) ** 2)) * _step(np.abs(y) - 0.30, 0.05) * (0.5 + 0.4 * level)
        wet = np.clip(ventricles + np.clip(falx, 0, 1), 0, 1)
        inside = self.fluid + (tissue - self.fluid) * brain * (1 - wet)
        value = head * (self.fat * (1 + 0.10 * noise["bias"] + 0.06 * noise["texture"]))
        value = value + (0.06 + 0.02 * noise["texture"] - value) * skull
        value = value + (inside - value) * cavity
        return np.clip(value, 0, 1), brain * (1 - wet) * cavity

    def polar(self, size: int, level: float) -> tuple[Floats, Floats, Floats, Floats]:
        """Coordinates within the head: x, y in head half axes' units of the side, rho 1 at the outline, and the angle."""
        grid = (np.arange(size) + 0.5) / size * 2 - 1
        gx, gy = np.meshgrid(grid - self.centre[0], grid - self.centre[1])
        c, s = np.cos(self.turn), np.sin(self.turn)
        x, y = c * gx + s * gy, c * gy - s * gx
        scale = np.sqrt(1 - (0.75 * level) ** 2 * (1.0 if level > 0 else 0.6))
        a, b = self.axes[0] * scale, self.axes[1] * scale
        theta = np.arctan2(y / b, x / a)
        outline = 1 + sum(amp * np.cos((k + 2) * theta + phase) for k, (amp, phase) in enumerate(self.waves))
        return x, y, np.hypot(x / a, y / b) / outline, theta

    def ventricles(self, x: Floats, y: Floats, level: float, soft: float) -> Floats:
        """Two horns that open to the front and the back in the middle slices, and the third ventricle below."""
        middle = max(0.0, 1 - ((level - 0.1) / 0.62) ** 2)
        out = np.zeros_like(x)
        if middle > 0.02:
            size = self.ventricle * np.sqrt(middle)
            for side in (-1, 1):
                for front, length in ((-1, 0.17), (1, 0.15)):
                    cx, cy, angle = side * (0.075 + 0.055 * (front > 0)), front * 0.13, side * front * 0.38
                    u = np.cos(angle) * (x - cx) + np.sin(angle) * (y - cy)
                    v = np.cos(angle) * (y - cy) - np.sin(angle) * (x - cx)
                    r = np.hypot(u / (0.055 * size), v / (length * size))
                    out = np.maximum(out, _step(1 - r, soft / (0.06 * size)))
        third = max(0.0, 1 - ((level + 0.35) / 0.3) ** 2)
        if third > 0.02:
            r = np.hypot(x / (0.025 * self.ventricle), (y - 0.02) / (0.11 * self.ventricle * third))
            out = np.maximum(out, _step(1 - r, soft / 0.03) * third)
        return out

    def nuclei(self, x: Floats, y: Floats, level: float, soft: float) -> Floats:
        """Deep grey matter beside the ventricles."""
        there = max(0.0, 1 - ((level + 0.1) / 0.5) ** 2)
        out = np.zeros_like(x)
        for side in (-1, 1):
            r = np.hypot((x - side * 0.21) / 0.09, (y - 0.01 - 0.1 * abs(x - side * 0.21)) / 0.17)
            out = np.maximum(out, _step(1 - r, soft / 0.08))
        return out * there


def _lesion(
    rng: np.random.Generator, size: int, levels: Floats, brains: list[Floats], look: Look
) -> tuple[Floats, Floats, str]:
    """(weights in [0, 1], what is added to the intensities, kind), each (slices, S, S), for one irregular blob in the brain."""
    count, spacing = len(levels), float(levels[1] - levels[0]) if len(levels) > 1 else 1.0
    least = max(6, round(size * size / 340))  # pixels: 12 at 64
    for _ in range(200):
        middle = int(rng.integers(count))
        room = gaussian_filter(brains[middle], size / 22) > 0.85  # not on a strip between two fluids
        radius = rng.uniform(*look.radius)
        height = spacing * rng.uniform(1.5, 3.0)  # half height: three to five slices
        places = np.argwhere(room)
        if not len(places):
            continue
        cy, cx = (places[rng.integers(len(places))] + 0.5) / size * 2 - 1
        field = _smooth(rng, (count, size, size), (0.8, size / 14, size / 14))
        texture = _smooth(rng, (count, size, size), (0.4, size / 50, size / 50))
        stretch, turn = rng.uniform(0.72, 1.0), rng.uniform(0, np.pi)
        grid = (np.arange(size) + 0.5) / size * 2 - 1
        x, y = np.meshgrid(grid - cx, grid - cy)
        u, v = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
        r = np.hypot(u, v / stretch) / radius
        depth = (levels - levels[middle]) / height
        weights = np.stack(
            [
                _step(np.sqrt(max(1 - d * d, 0.0)) - r + 0.16 * field[k], 0.20) * brains[k] if abs(d) < 1 else np.zeros_like(r)
                for k, d in enumerate(depth)
            ]
        )
        weights = np.stack([_largest(w) for w in weights])
        seen = (weights > 0.3).sum((1, 2))
        weights[(seen < least)] = 0.0  # a trace that nobody could see is not drawn
        if seen[middle] >= 2 * least:
            break
    else:  # 200 draws without room means a brain of a few pixels
        raise UsageError("no room for a lesion", hint="use a larger image")
    dark = rng.random() < look.dark
    amplitude = rng.uniform(*look.contrast) * (-0.72 if dark else 1.0)
    body = 1 + 0.13 * texture
    if not dark and rng.random() < 0.3:  # a dark core within a bright rim
        body = body - 0.8 * _step(0.40 - r[None] + 0.1 * field, 0.25)
    return weights, amplitude * weights * body, "dark" if dark else "bright"


def _largest(weights: Floats) -> Floats:
    """Only the largest connected part: noise may cut off islands, which would be lesions of their own."""
    parts, number = label(weights > 0.3)
    if number < 2:
        return weights
    biggest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return np.where(binary_dilation(parts == biggest, iterations=3) & ~((parts > 0) & (parts != biggest)), weights, 0.0)


def _write(out: Path, one: Slice) -> Row:
    name = f"{one.patient}_{one.index:02d}.png"
    ill = bool(one.mask.any())
    write_bytes(out / "images" / name, _png(one.image))
    if ill:
        write_bytes(out / "masks" / name, _png(one.mask.astype(np.uint8) * 255))
        write_bytes(out / "twins" / name, _png(one.twin))
    near = "" if one.to_tumour is None else str(one.to_tumour)
    extra = {
        "class": one.kind,
        "slice": str(one.index),
        "level": str(one.level),
        "slices_to_tumour": near,
        "tumour_pixels": str(int(one.mask.sum())),
        "twin": f"twins/{name}" if ill else "",
    }
    return Row(f"images/{name}", DISEASED if ill else HEALTHY, one.patient, "", f"masks/{name}" if ill else "", extra=extra)


def _without_training_twins(table: Table) -> Table:
    rows = []
    for row in table:
        if row.split == "train" and row["twin"]:
            (table.root / row["twin"]).unlink()
            row = replace(row, extra={**row.extra, "twin": ""})
        rows.append(row)
    return replace(table, rows=tuple(rows))


def _png(array: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Pil.fromarray(array).save(buffer, "PNG", optimize=False, compress_level=6)
    return buffer.getvalue()


def _readme(table: Table, patients: int, size: int, seed: int) -> str:
    lines = [
        "# Phantoms",
        "",
        f"Made-up brain-like slices, {size} x {size}, 8-bit grey, {patients} patients, seed {seed}.",
        "No real person is shown; no terms apply.",
        "",
        "| split | label | images | patients |",
        "|---|---|---|---|",
    ]
    for split in SPLITS:
        for name in (HEALTHY, DISEASED):
            rows = [r for r in table if (r.split, r.label) == (split, name)]
            lines.append(f"| {split} | {name} | {len(rows)} | {len({r.patient_id for r in rows})} |")
    return (
        "\n".join(lines)
        + """

`labels.csv`: `class` (none, bright or dark lesion), `slice` and `level` (from the base, -1, to the vertex, 1),
`slices_to_tumour` (empty: a healthy patient), `tumour_pixels`, `twin` (the same slice without the lesion). Masks hold 0 and
255; a lesion's soft rim reaches a few pixels beyond its mask, further out image and twin are identical.

Made with `healmap data make phantoms`. Figures measured here say whether a program works, nothing about real images.
"""
    )
