"""Localisation by lesion: sensitivity against false positives per image (FROC).

The rule is Fixed-Point GAN's (section 4.2): the map is thresholded, its 8-connected parts above a least area are candidates,
a lesion is found when the centroid of at least one candidate lies inside it, and a candidate whose centroid lies in no
lesion is a false positive. Several candidates in one lesion count once and are not false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from .overlap import EIGHT, label_components


def hits(candidates: ArrayLike, lesions: NDArray[np.integer], min_area: int = 0) -> tuple[int, int]:
    """Lesions found and false positives of one image.

    candidates: mask (H, W). lesions: label image (H, W), 0 = none.
    """
    _, parts = label_components(candidates, min_area)
    inside = [int(lesions[tuple(int(c + 0.5) for c in part.centroid)]) for part in parts]
    return len({i for i in inside if i}), sum(i == 0 for i in inside)


@dataclass
class Froc:
    """Sums, per group, of lesions found and false positives at ``thresholds`` (descending)."""

    thresholds: NDArray[np.float64]
    min_area: int = 0
    rows: dict[str, dict[str, NDArray[np.float64]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.thresholds = np.unique(np.asarray(self.thresholds, dtype=float))[::-1]

    def add(self, group: str, anomaly_map: ArrayLike, truth: ArrayLike) -> None:
        """anomaly_map and truth: (H, W)."""
        values, mask = np.asarray(anomaly_map), np.asarray(truth, dtype=bool)
        lesions, count = ndimage.label(mask, structure=EIGHT)
        sizes = {"found": len(self.thresholds), "false": len(self.thresholds), "lesions": 1, "images": 1}
        row = self.rows.setdefault(group, {name: np.zeros(size) for name, size in sizes.items()})
        row["lesions"] += count
        row["images"] += 1
        pixels, found, false = 0, 0, 0
        for k, threshold in enumerate(self.thresholds):
            mask = values >= threshold
            above = int(np.count_nonzero(mask))
            if above > pixels:  # else the same mask as at the threshold before
                found, false = hits(mask, lesions, self.min_area)
                pixels = above
            row["found"][k] += found
            row["false"][k] += false

    def sums(self, weights: NDArray[np.number] | None = None) -> dict[str, NDArray[np.float64]]:
        """Sums over groups, weighted by ``weights`` (B, P) (all ones if None): found, false (B, T); lesions, images (B, 1)."""
        w = np.ones((1, len(self.rows))) if weights is None else np.asarray(weights, dtype=float)
        names = ("found", "false", "lesions", "images")
        if not self.rows:
            return {name: np.zeros((len(w), len(self.thresholds) if name in names[:2] else 1)) for name in names}
        return {name: w @ np.stack([row[name] for row in self.rows.values()]) for name in names}

    def curve(self, weights: NDArray[np.number] | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sensitivity (B, T), NaN without lesions, and false positives per image (B, T), from the strictest threshold on."""
        s = self.sums(weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            return s["found"] / s["lesions"], s["false"] / s["images"]

    def sensitivity_at(self, rate: float, weights: NDArray[np.number] | None = None) -> NDArray[np.float64]:
        """Largest sensitivity, (B,), from the strictest threshold on until false positives per image first exceed ``rate``.

        Below that threshold candidates merge and false positives fall again; that stretch does not count.
        """
        sensitivity, false = self.curve(weights)
        allowed = np.logical_and.accumulate(false <= rate, axis=1)
        best = np.where(allowed, sensitivity, 0.0).max(axis=1, initial=0.0)
        return np.where(np.isnan(sensitivity).any(axis=1) if sensitivity.shape[1] else True, np.nan, best)


def threshold_grid(
    values: ArrayLike, counts: ArrayLike, *, points: int = 28, extra: Sequence[float] = ()
) -> NDArray[np.float64]:
    """Thresholds for a sweep, descending, from counts (K,) of map values (K,) ascending.

    Exceeded by half of the pixels down to one of them, in equal steps of the logarithm; some lie beyond the largest value,
    since other images may go higher. ``extra`` ones are added.
    """
    v, c = np.asarray(values, dtype=float), np.asarray(counts, dtype=float)
    more = np.asarray(list(extra), dtype=float)
    if c.sum() > 0:
        above = np.cumsum(c[::-1])[::-1]  # pixels at or above each value
        wanted = np.geomspace(0.5 * c.sum(), 1, points)
        index = np.clip(np.searchsorted(-above, -wanted, side="right") - 1, 0, len(v) - 1)
        more = np.concatenate([v[index], v[c > 0].max() * np.array([1.15, 1.35, 1.6, 2.0, 3.0]), more])
    return np.unique(more[more > 0])[::-1]
