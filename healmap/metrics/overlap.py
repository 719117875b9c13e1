"""Two binary masks of one shape: predicted and true."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

EIGHT = np.ones((3, 3), dtype=bool)  # diagonal neighbours belong together


@dataclass(frozen=True)
class Overlap:
    """Pixel counts, and the figures that follow from them.

    Two empty masks agree: Dice and IoU are 1. Otherwise a figure without its pixels is 0.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def dice(self) -> float:
        whole = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / whole if whole else 1.0

    @property
    def iou(self) -> float:
        whole = self.tp + self.fp + self.fn
        return self.tp / whole if whole else 1.0

    @property
    def precision(self) -> float:
        return self.tp / (self.tp + self.fp) if self.tp else 0.0

    @property
    def recall(self) -> float:
        return self.tp / (self.tp + self.fn) if self.tp else 0.0

    @property
    def accuracy(self) -> float:
        return (self.tp + self.tn) / (self.tp + self.fp + self.fn + self.tn)


def overlap(predicted: ArrayLike, true: ArrayLike) -> Overlap:
    p, t = np.asarray(predicted, dtype=bool), np.asarray(true, dtype=bool)
    if p.shape != t.shape:
        raise ValueError(f"masks of shapes {p.shape} and {t.shape}")
    tp = int(np.count_nonzero(p & t))
    fp, fn = int(np.count_nonzero(p)) - tp, int(np.count_nonzero(t)) - tp
    return Overlap(tp, fp, fn, p.size - tp - fp - fn)


@dataclass(frozen=True)
class Component:
    """A connected part of a mask: pixels, and centroid in array indices (row, column[, …])."""

    area: int
    centroid: tuple[float, ...]
    label: int


def label_components(mask: ArrayLike, min_area: int = 0) -> tuple[NDArray[np.int32], list[Component]]:
    """8-connected parts (26-connected in three dimensions) with more than ``min_area`` pixels, as a label image and a list.

    Dropped parts are 0 in the label image. "More than" is Fixed-Point GAN's rule (section 4.2: area above 10 pixels).
    """
    m = np.asarray(mask, dtype=bool)
    labels, count = ndimage.label(m, structure=np.ones((3,) * m.ndim, dtype=bool))
    if not count:
        return labels, []
    flat = labels.ravel()
    inside = np.flatnonzero(flat)
    which = flat[inside]
    areas = np.bincount(which, minlength=count + 1)
    place = np.unravel_index(inside, m.shape)
    centres = [np.bincount(which, axis, minlength=count + 1) / np.maximum(areas, 1) for axis in place]
    kept = np.flatnonzero(areas > min_area)
    kept = kept[kept > 0]
    if len(kept) < count:
        labels = np.where(np.isin(labels, kept), labels, 0)
    return labels, [Component(int(areas[k]), tuple(float(c[k]) for c in centres), int(k)) for k in kept]


def remove_small(mask: ArrayLike, min_area: int) -> NDArray[np.bool_]:
    """The mask without components of ``min_area`` pixels or fewer."""
    m = np.asarray(mask, dtype=bool)
    return m if min_area <= 0 else label_components(m, min_area)[0] > 0
