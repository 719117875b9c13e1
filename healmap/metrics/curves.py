"""Figures from counts per threshold. Every function takes positive and negative counts (..., K) at ascending thresholds
and works on all leading axes at once; where a figure is undefined (one class only) it is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]


def _at_or_above(counts: Counts) -> Counts:
    """Sum over bins k and higher: the counts that ``value >= threshold k`` calls diseased."""
    return np.cumsum(counts[..., ::-1], axis=-1)[..., ::-1]


def auroc(positive: Counts, negative: Counts) -> Counts:
    """Area under the ROC curve: P(positive > negative) + P(equal) / 2. Shape (...)."""
    above = _at_or_above(positive) - positive
    pairs = (negative * (above + positive / 2)).sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return pairs / (positive.sum(axis=-1) * negative.sum(axis=-1))


def average_precision(positive: Counts, negative: Counts) -> Counts:
    """Σ (R_k - R_{k-1}) P_k over descending thresholds, without interpolation (scikit-learn's definition). Shape (...).

    NaN without negatives as well: where nothing can be confused, every detector would get 1.
    """
    tp, fp = _at_or_above(positive), _at_or_above(negative)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(tp > 0, tp / (tp + fp), 0.0)
        area = (positive * precision).sum(axis=-1) / positive.sum(axis=-1)
    return np.where(negative.sum(axis=-1) > 0, area, np.nan)


def dice_curve(positive: Counts, negative: Counts) -> Counts:
    """Pooled Dice 2 TP / (2 TP + FP + FN) at every threshold, (..., K)."""
    tp, fp = _at_or_above(positive), _at_or_above(negative)
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = 2 * tp / (tp + fp + positive.sum(axis=-1, keepdims=True))
    return np.where(positive.sum(axis=-1, keepdims=True) > 0, dice, np.nan)


def iou_of_dice(dice: Counts) -> Counts:
    """Intersection over union of the same masks: D / (2 - D)."""
    return dice / (2 - dice)


def best_dice(positive: Counts, negative: Counts) -> Counts:
    """Pooled Dice at the threshold that suits these very labels best: an upper bound, written ⌈Dice⌉ in the literature."""
    curve = dice_curve(positive, negative)
    return curve.max(axis=-1) if curve.shape[-1] else np.full(curve.shape[:-1], np.nan)


def best_dice_threshold(values: Counts, positive: Counts, negative: Counts) -> float:
    """The threshold of :func:`best_dice` for counts (K,); the highest one on ties, which marks least."""
    curve = dice_curve(positive, negative)
    if not curve.size or np.isnan(curve).all():
        return float("nan")
    return float(values[len(curve) - 1 - int(np.argmax(curve[::-1]))])


@dataclass(frozen=True)
class Roc:
    """False positive rate, true positive rate and threshold, from the strictest to the laxest; starts at (0, 0, inf)."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]
    threshold: NDArray[np.float64]


def roc(values: Counts, positive: Counts, negative: Counts) -> Roc:
    """The ROC curve of counts (K,). NaN rates where a class is empty."""
    tp, fp = _at_or_above(positive)[::-1], _at_or_above(negative)[::-1]
    with np.errstate(invalid="ignore", divide="ignore"):
        tpr, fpr = tp / positive.sum(), fp / negative.sum()
    return Roc(np.concatenate([[0.0], fpr]), np.concatenate([[0.0], tpr]), np.concatenate([[np.inf], values[::-1]]))
