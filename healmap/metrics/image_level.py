"""Detection: one score per image, higher = more diseased; labels 0 = healthy, 1 = diseased."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _pair(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    y, s = np.asarray(labels).astype(np.int64).ravel(), np.asarray(scores, dtype=np.float64).ravel()
    if y.shape != s.shape:
        raise ValueError(f"{len(y)} labels for {len(s)} scores")
    if not np.isfinite(s).all():
        raise ValueError("scores must be finite numbers")
    return y, s


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve; NaN when one class is absent."""
    from sklearn.metrics import roc_auc_score

    y, s = _pair(labels, scores)
    return float(roc_auc_score(y, s)) if 0 < y.sum() < len(y) else float("nan")


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision (area under the precision-recall steps); NaN without diseased images."""
    from sklearn.metrics import average_precision_score

    y, s = _pair(labels, scores)
    return float(average_precision_score(y, s)) if y.sum() else float("nan")


@dataclass(frozen=True)
class Confusion:
    """Counts at one threshold, and the rates that follow. A rate without cases is NaN."""

    tp: int
    tn: int
    fp: int
    fn: int

    @property
    def sensitivity(self) -> float:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def precision(self) -> float:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def accuracy(self) -> float:
        return _ratio(self.tp + self.tn, self.tp + self.tn + self.fp + self.fn)

    @property
    def f1(self) -> float:
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else float("nan")


def confusion(labels: ArrayLike, scores: ArrayLike, threshold: float) -> Confusion:
    """Diseased where score >= threshold."""
    y, s = _pair(labels, scores)
    called = s >= threshold
    return Confusion(
        int((called & (y == 1)).sum()),
        int((~called & (y == 0)).sum()),
        int((called & (y == 0)).sum()),
        int((~called & (y == 1)).sum()),
    )


def equal_error_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """Threshold of the ROC point with the smallest |TPR - (1 - FPR)|, the first such point from the strictest on.

    The read-out of HealthyGAN and Brainomaly (there on the test labels themselves). Raises ValueError for one class.
    """
    from sklearn.metrics import roc_curve

    y, s = _pair(labels, scores)
    if not 0 < y.sum() < len(y):
        raise ValueError("an equal-error threshold needs healthy and diseased images")
    fpr, tpr, thresholds = roc_curve(y, s)
    return float(thresholds[int(np.argmin(np.abs(tpr - (1 - fpr))))])


def best_f1_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The threshold with the largest F1, halfway between the last score called and the first not called.

    On ties the strictest, which calls fewest. Raises ValueError without diseased images.
    """
    y, s = _pair(labels, scores)
    if not y.sum():
        raise ValueError("a best-F1 threshold needs diseased images")
    values = np.unique(s)[::-1]
    order = np.argsort(-s, kind="stable")
    tp = np.cumsum(y[order])
    last = np.searchsorted(-s[order], -values, side="right") - 1  # place of the last image called at each value
    f1 = 2 * tp[last] / (last + 1 + y.sum())
    k = int(np.argmax(f1))
    return float((values[k] + values[k + 1]) / 2) if k + 1 < len(values) else float(values[k])


def healthy_quantile_threshold(scores: ArrayLike, quantile: float) -> float:
    """A threshold that calls at most a share 1 - ``quantile`` of these healthy images. Raises ValueError if there are none."""
    s = np.asarray(scores, dtype=float).ravel()
    if not s.size:
        raise ValueError("a healthy quantile needs healthy images")
    # The next number above the quantile's score: score >= threshold then leaves that image uncalled.
    return float(np.nextafter(np.quantile(s, quantile, method="inverted_cdf"), np.inf))


def aucp(healthy: ArrayLike, unlabelled: ArrayLike) -> float:
    """Pseudo-AUC: ROC AUC of known-healthy scores (0) against all unlabelled ones (1). Rahman Siddiquee et al., TMI 2026."""
    h, u = np.asarray(healthy, dtype=float).ravel(), np.asarray(unlabelled, dtype=float).ravel()
    if not h.size or not u.size:
        raise ValueError("AUCp needs healthy and unlabelled scores")
    return auroc(np.r_[np.zeros(len(h)), np.ones(len(u))], np.r_[h, u])


def auc_from_aucp(value: float, healthy_share: float) -> float:
    """AUC ≈ (AUCp - ρ/2) / (1 - ρ), where a share ρ of the unlabelled set is healthy and distributed as the known healthy."""
    if not 0 <= healthy_share < 1:
        raise ValueError(f"the healthy share must lie in [0, 1), not {healthy_share}")
    return (value - healthy_share / 2) / (1 - healthy_share)


def select_by_aucp(checkpoints: Sequence[tuple[int, float]]) -> int:
    """The checkpoint with the highest AUCp, the first on ties; non-finite values are skipped. Raises ValueError if all are."""
    finite = [(step, value) for step, value in checkpoints if math.isfinite(value)]
    if not finite:
        raise ValueError("no checkpoint has a finite AUCp")
    return max(finite, key=lambda pair: pair[1])[0]  # max keeps the first of equals


@dataclass(frozen=True)
class Kappa:
    value: float
    standard_error: float

    @property
    def ci95(self) -> tuple[float, float]:
        return self.value - 1.96 * self.standard_error, self.value + 1.96 * self.standard_error


def cohen_kappa(table: ArrayLike) -> Kappa:
    """Cohen's kappa of a square table of counts, with the large-sample standard error sqrt(p_o (1-p_o) / (n (1-p_e)²))."""
    counts = np.asarray(table, dtype=float)
    n = counts.sum()
    agree, chance = np.trace(counts) / n, (counts.sum(axis=0) * counts.sum(axis=1)).sum() / n**2
    if chance == 1:
        return Kappa(float("nan"), float("nan"))
    return Kappa(float((agree - chance) / (1 - chance)), float(np.sqrt(agree * (1 - agree) / n) / (1 - chance)))
