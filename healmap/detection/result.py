"""What detection says of one image or volume, and the findings in it. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..io.image import Image
from ..metrics.overlap import label_components


@dataclass(frozen=True)
class Finding:
    """A connected part of the map above the pixel threshold.

    centre: array indices, in the image's own axis order. centre_mm: patient millimetres (RAS+); None without known geometry.
    size: pixels or voxels. size_mm: mm² or mm³; None without spacing. peak, mean: of the map inside.
    """

    centre: tuple[float, ...]
    size: int
    peak: float
    mean: float
    centre_mm: tuple[float, float, float] | None = None
    size_mm: float | None = None


@dataclass(frozen=True, eq=False)
class PlaneResult:
    """One plane at its own size. Arrays (H, W), float32; None where the method does not give them.

    score: higher = more diseased. anomaly_map: >= 0. healed: raw units, (H, W, 3) for colour. maps: the method's further named
    results, spatial ones at the plane's size, displacements in its pixels.
    """

    score: float
    anomaly_map: NDArray[np.float32] | None = None
    healed: NDArray[np.float32] | None = None
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CaseResult:
    """One image or volume. Arrays lie on ``image``'s grid, in its own axis order.

    score: of a volume the highest of its slices. threshold, call: None when the run has no image threshold; call is
    ``score >= threshold``. mask: the map at or above the pixel threshold without small parts; None without one.
    slices: (index, score) of the slices looked at; empty for planes. maps: of planes only.
    """

    score: float
    threshold: float | None
    call: bool | None
    image: Image
    anomaly_map: NDArray[np.float32] | None = None
    healed: NDArray[np.float32] | None = None
    mask: NDArray[np.bool_] | None = None
    findings: tuple[Finding, ...] = ()
    slices: tuple[tuple[int, float], ...] = ()
    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)


def findings_of(mask: NDArray[np.bool_], anomaly_map: NDArray[Any], image: Image) -> tuple[Finding, ...]:
    """The connected parts of ``mask``, the highest peak first. All arrays on the image's grid."""
    labels, parts = label_components(mask)
    if not parts:
        return ()
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    which, values = flat[inside], anomaly_map.ravel()[inside].astype(np.float64)
    peaks = np.full(int(which.max()) + 1, -np.inf)
    np.maximum.at(peaks, which, values)
    sums = np.bincount(which, values)
    voxel = float(np.prod(image.spacing[: mask.ndim])) if image.spacing else None
    found = [
        Finding(
            part.centroid,
            part.area,
            float(peaks[part.label]),
            float(sums[part.label] / part.area),
            _millimetres(part.centroid, image),
            part.area * voxel if voxel else None,
        )
        for part in parts
    ]
    return tuple(sorted(found, key=lambda f: -f.peak))


def _millimetres(centre: tuple[float, ...], image: Image) -> tuple[float, float, float] | None:
    if image.affine is None:
        return None
    index = np.array([*centre[:3], *([0.0] * (3 - len(centre))), 1.0])
    x, y, z = (image.affine @ index)[:3]
    return float(x), float(y), float(z)
