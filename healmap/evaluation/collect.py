"""What is kept of every evaluated image: sums per patient, never pixels. Method and baselines are collected alike."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..metrics import curves
from ..metrics.bins import PixelTally
from ..metrics.froc import Froc
from ..metrics.overlap import overlap, remove_small
from ..metrics.similarity import percentile_mask
from ..types import DISEASED, HEALTHY

if TYPE_CHECKING:
    from .baselines import IntensityBaseline, ThumbnailBaseline
    from .twins import Twin

FALLBACK_SWEEP = np.geomspace(1.0, 1e-3, 40)  # thresholds of the FROC curve when no validation data proposed any
PERCENTILE = 99.0  # Fixed-Point GAN's released mask


@dataclass(frozen=True)
class Seen:
    """One image. change, mse: of a healed image against the given one, see ``figures.healthy_figures``.

    dice: of its mask at the validation threshold; None without a lesion, an annotation or a threshold."""

    key: str
    path: str
    patient: str
    slice: int | None
    label: str
    score: float
    change: float | None = None
    mse: float | None = None
    dice: float | None = None
    lesion_pixels: int | None = None


class Collector:
    """Scores and pixel counts of one detector.

    pixel_threshold: from validation data; None: there is none. sweep: thresholds of the FROC curve.
    """

    def __init__(self, pixel_threshold: float | None, sweep: NDArray[np.float64] | None, min_area: int) -> None:
        self.pixel_threshold, self.min_area = pixel_threshold, min_area
        grid = FALLBACK_SWEEP if sweep is None or not len(sweep) else np.asarray(sweep)
        if pixel_threshold is not None:
            grid = np.append(grid, pixel_threshold)
        self.froc = Froc(grid, min_area)
        self.pixels = PixelTally()
        self.seen: list[Seen] = []
        self.counts: dict[str, NDArray[np.float64]] = {}  # per patient: tp, fp, fn at the validation threshold
        self.cleaned: dict[str, NDArray[np.float64]] = {}  # likewise, small components removed: the masks as they are written
        self.percentile: dict[str, NDArray[np.float64]] = {}  # likewise, of the 99th-percentile masks of images with a lesion
        self.slices: list[tuple[str, float, float, float]] = []  # images with a lesion: patient, Dice, AUROC, AP
        self.annotated = 0

    def add(
        self,
        seen: Seen,
        anomaly_map: NDArray[np.float32] | None,
        mask: NDArray[np.bool_] | None,
    ) -> Seen:
        """Counts one image; map and mask (H, W) at native size. Returns ``seen`` with its Dice filled in."""
        if anomaly_map is not None and mask is not None and seen.label in (HEALTHY, DISEASED):
            self.annotated += 1
            patient, lesion = seen.patient, int(mask.sum())
            single = self.pixels.add(patient, anomaly_map, mask)
            self.froc.add(patient, anomaly_map, mask)
            dice = float("nan")
            if self.pixel_threshold is not None:
                marked = anomaly_map >= self.pixel_threshold
                got = overlap(marked, mask)
                _sum(self.counts, patient, (got.tp, got.fp, got.fn))
                dice = got.dice
                clean = overlap(remove_small(marked, self.min_area), mask) if self.min_area else got
                _sum(self.cleaned, patient, (clean.tp, clean.fp, clean.fn))
            if lesion:
                positive, negative = single.pooled()
                ap = float(curves.average_precision(positive, negative))
                self.slices.append((patient, dice, float(curves.auroc(positive, negative)), ap))
                got = overlap(percentile_mask(anomaly_map, PERCENTILE)[0], mask)
                _sum(self.percentile, patient, (got.tp, got.fp, got.fn))
                seen = replace(seen, dice=None if np.isnan(dice) else dice)
            seen = replace(seen, lesion_pixels=lesion)
        self.seen.append(seen)
        return seen

    def labelled(self) -> list[Seen]:
        """The images whose label is known."""
        return [s for s in self.seen if s.label in (HEALTHY, DISEASED)]


def _sum(sums: dict[str, NDArray[np.float64]], patient: str, values: tuple[int, ...]) -> None:
    sums[patient] = sums.get(patient, np.zeros(len(values))) + np.array(values, dtype=float)


@dataclass
class Detectors:
    """The method and the baselines that look at the same images. thumbnails: a text says why there are none."""

    method: Collector
    intensity: Collector | None = None
    intensity_baseline: IntensityBaseline | None = None
    thumbnails: ThumbnailBaseline | str | None = None
    thumbnail_scores: list[float] = field(default_factory=list)
    twins: list[Twin] = field(default_factory=list)
