"""Figures and their intervals from what was collected. Intervals resample patients; every figure uses the same resamples,
so that the margin between two detectors is that of paired data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..metrics import curves, image_level
from ..metrics.bins import Bins, exact_bins
from ..metrics.bootstrap import Figure, difference, figure, resamples
from ..types import DISEASED, HEALTHY
from .collect import Collector

Tree = dict[str, Any]  # nested: name -> Figure or Tree
ONE_CLASS = "needs healthy and diseased images"
ONE_PATIENT_CLASS = "needs patients without any diseased image, and others"
NO_MASKS = "no diseased image is annotated"
NO_MAP = "this detector gives no map"
NO_PIXEL_THRESHOLD = "no pixel threshold: validation data are missing"
NO_IMAGE_THRESHOLD = "no image threshold: validation data are missing"


class Resampler:
    """How often each patient is drawn: weights (B, P). Figures over fewer patients take their columns."""

    def __init__(self, patients: Sequence[str], count: int, seed: int = 0) -> None:
        self.patients = tuple(dict.fromkeys(patients))
        self.place = {name: i for i, name in enumerate(self.patients)}
        self.weights = resamples(len(self.patients), count, seed)

    def of(self, groups: Sequence[str]) -> NDArray[np.int64]:
        return self.weights[:, [self.place[g] for g in groups]]

    def bins(self, bins: Bins, functions: Mapping[str, Callable], n: int, reason: str) -> Tree:
        """Several figures of the same counts."""
        positive, negative = bins.pooled()
        samples: dict[str, list[NDArray[np.float64]]] = {name: [] for name in functions}
        if bins.groups:
            for pos, neg in bins.weighted(self.of(bins.groups)):
                for name, f in functions.items():
                    samples[name].append(f(pos, neg))
        return {
            name: figure(
                float(f(positive, negative)),
                np.concatenate(samples[name]) if samples[name] else None,
                n,
                patients=len(bins.groups),
                reason=reason,
            )
            for name, f in functions.items()
        }

    def ratio(self, parts: Mapping[str, tuple[float, float]], n: int, reason: str) -> Figure:
        """Σ numerator / Σ denominator over patients."""
        table = np.array(list(parts.values()), dtype=float).reshape(-1, 2)
        drawn = self.of(list(parts)) @ table if len(parts) else np.zeros((0, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            whole = table.sum(axis=0)
            return figure(float(whole[0] / whole[1]), drawn[:, 0] / drawn[:, 1], n, patients=len(parts), reason=reason)


def image_figures(collected: Collector, draw: Resampler, threshold: float | None = None, *, called: bool = True) -> Tree:
    """``auroc``, ``ap`` and, with ``called``, what the validation threshold buys."""
    seen = collected.labelled()
    truth = np.array([s.label == DISEASED for s in seen], dtype=bool)
    groups, scores = [s.patient for s in seen], np.array([s.score for s in seen])
    bins = exact_bins(groups, scores, truth)
    functions = {"auroc": curves.auroc, "ap": curves.average_precision}
    tree = draw.bins(bins, functions, len(seen), ONE_CLASS)
    if not called:
        return tree
    hit = scores >= threshold if threshold is not None else np.zeros(len(seen), bool)
    rates = {
        "sensitivity": (hit & truth, truth),
        "specificity": (~hit & ~truth, ~truth),
        "accuracy": (hit == truth, np.ones_like(truth)),
        "f1": (2 * (hit & truth), 2 * (hit & truth) + (hit ^ truth)),
    }
    for name, (part, whole) in rates.items():
        if threshold is None:
            tree[name] = Figure(None, None, len(seen), NO_IMAGE_THRESHOLD)
        else:
            n = len(seen) if name in ("accuracy", "f1") else int(np.asarray(whole).sum())
            tree[name] = draw.ratio(_per_patient(groups, part, whole), n, ONE_CLASS)
    return tree


def patient_figures(collected: Collector, draw: Resampler) -> Tree:
    """``auroc`` and ``ap`` of patients, whose score is the mean over their images (Brainomaly), diseased if one image is."""
    scores: dict[str, list[float]] = {}
    diseased: dict[str, bool] = {}
    for s in collected.labelled():
        scores.setdefault(s.patient, []).append(s.score)
        diseased[s.patient] = diseased.get(s.patient, False) or s.label == DISEASED
    groups, truth = list(scores), np.array(list(diseased.values()), dtype=bool)
    bins = exact_bins(groups, np.array([np.mean(v) for v in scores.values()]), truth)
    return draw.bins(bins, {"auroc": curves.auroc, "ap": curves.average_precision}, len(groups), ONE_PATIENT_CLASS)


def pixel_figures(collected: Collector, draw: Resampler, *, localises: bool = True) -> Tree:
    """Pooled over all annotated images, and the mean over the images that hold a lesion (``*_per_slice``).

    ``dice`` and ``dice_best`` are of the map above a threshold, so that the best is never below the other; ``dice_cleaned`` is
    ``dice`` after components of at most ``detection.min_area`` pixels were removed, as in the masks that predict writes.
    """
    bins, n = collected.pixels.bins(), collected.annotated
    reason = NO_MAP if not localises else NO_MASKS
    functions = {
        "auroc": curves.auroc,
        "ap": curves.average_precision,
        "dice_best": curves.best_dice,
        "iou_best": lambda p, q: curves.iou_of_dice(curves.best_dice(p, q)),
    }
    tree = draw.bins(bins, functions, n, reason)
    without = reason if not collected.slices else NO_PIXEL_THRESHOLD
    counts = collected.counts if collected.slices else {}
    cleaned = collected.cleaned if collected.slices else {}
    tree["dice"] = draw.ratio({p: (2 * tp, 2 * tp + fp + fn) for p, (tp, fp, fn) in counts.items()}, n, without)
    tree["dice_cleaned"] = draw.ratio({p: (2 * tp, 2 * tp + fp + fn) for p, (tp, fp, fn) in cleaned.items()}, n, without)
    tree["iou"] = draw.ratio({p: (tp, tp + fp + fn) for p, (tp, fp, fn) in counts.items()}, n, without)
    for place, name in ((1, "dice_per_slice"), (2, "auroc_per_slice"), (3, "ap_per_slice")):
        values = [(s[0], float(s[place])) for s in collected.slices]  # type: ignore[arg-type]
        if place > 1:  # a lesion that fills its image leaves nothing to confuse it with
            values = [(patient, value) for patient, value in values if not np.isnan(value)]
        parts = _per_patient([p for p, _ in values], np.array([v for _, v in values]), np.ones(len(values)))
        tree[name] = draw.ratio(parts, len(values), without if place == 1 else reason)
    order = (
        "auroc",
        "ap",
        "dice",
        "dice_best",
        "dice_cleaned",
        "dice_per_slice",
        "iou",
        "iou_best",
        "auroc_per_slice",
        "ap_per_slice",
    )
    return {name: tree[name] for name in order}


def lesion_figures(collected: Collector, draw: Resampler, *, localises: bool = True) -> Tree:
    """By lesion: the FROC point at one false positive per image, and what the validation threshold buys."""
    froc, reason = collected.froc, NO_MAP if not localises else NO_MASKS
    groups = list(froc.rows)
    lesions = int(froc.sums()["lesions"][0, 0])
    if not lesions:
        names = ("sensitivity_at_1fp", "sensitivity", "false_positives_per_image")
        return {name: Figure(None, None, 0, reason) for name in names}
    weights = draw.of(groups)
    at_one = figure(
        float(froc.sensitivity_at(1.0)[0]),
        froc.sensitivity_at(1.0, weights),
        lesions,
        patients=len(groups),
        reason=reason,
    )
    tree: Tree = {"sensitivity_at_1fp": at_one}
    if collected.pixel_threshold is None:
        none = Figure(None, None, lesions, NO_PIXEL_THRESHOLD)
        return tree | {"sensitivity": none, "false_positives_per_image": none}
    k = int(np.argmin(np.abs(froc.thresholds - collected.pixel_threshold)))
    found = {p: (row["found"][k], row["lesions"][0]) for p, row in froc.rows.items()}
    false = {p: (row["false"][k], row["images"][0]) for p, row in froc.rows.items()}
    tree["sensitivity"] = draw.ratio(found, lesions, reason)
    tree["false_positives_per_image"] = draw.ratio(false, collected.annotated, reason)
    return tree


def healthy_figures(collected: Collector, draw: Resampler, *, heals: bool = True) -> Tree:
    """``change``: mean of |image - healed| / 2 over healthy images, as a share of the full range. ``mse``: DeScarGAN's
    MSE(r_h, a_h), of image and healed image each stretched to [-1, 1]. Less is better."""
    healthy = [s for s in collected.seen if s.label == HEALTHY and s.change is not None]
    patients, ones = [s.patient for s in healthy], np.ones(len(healthy))
    reason = "no healthy image" if heals else "this method does not heal"
    return {
        "change": draw.ratio(_per_patient(patients, np.array([s.change for s in healthy]), ones), len(healthy), reason),
        "mse": draw.ratio(_per_patient(patients, np.array([s.mse for s in healthy]), ones), len(healthy), reason),
    }


def paper_figures(collected: Collector, draw: Resampler) -> Tree:
    """By the papers' own protocols, whose thresholds are found on the evaluated labels themselves: not to be had in use.

    image: the equal-error threshold (HealthyGAN, Brainomaly). pixel: pixels at or above each image's own 99th percentile, on
    images with a lesion (Fixed-Point GAN as released).
    """
    seen = collected.labelled()
    truth = np.array([s.label == DISEASED for s in seen], dtype=bool)
    scores = np.array([s.score for s in seen])
    names = ("accuracy", "sensitivity", "specificity", "precision", "f1")
    image: Tree
    if truth.any() and not truth.all():
        counts = image_level.confusion(truth, scores, image_level.equal_error_threshold(truth, scores))
        image = {name: figure(getattr(counts, name), None, len(seen), patients=0) for name in names}
    else:
        image = {name: Figure(None, None, len(seen), ONE_CLASS) for name in names}
    parts = {p: (2 * tp, 2 * tp + fp + fn) for p, (tp, fp, fn) in collected.percentile.items()}
    return {"image": image, "pixel": {"dice_p99": draw.ratio(parts, len(collected.slices), NO_MASKS)}}


def margins(method: Tree, baseline: Tree) -> Tree:
    """Method minus baseline for every figure that both have, on the same resamples."""
    tree: Tree = {}
    for name, other in baseline.items():
        mine = method.get(name)
        if isinstance(mine, Figure) and isinstance(other, Figure):
            tree[name] = difference(mine, other)
        elif isinstance(mine, dict) and isinstance(other, dict):
            tree[name] = margins(mine, other)
    return tree


def plain(tree: Tree) -> Tree:
    return {name: value.plain() if isinstance(value, Figure) else plain(value) for name, value in tree.items()}


def _per_patient(groups: Sequence[str], part: Any, whole: Any) -> dict[str, tuple[float, float]]:
    sums: dict[str, tuple[float, float]] = {}
    for group, a, b in zip(groups, np.asarray(part, dtype=float), np.asarray(whole, dtype=float), strict=True):
        before = sums.get(group, (0.0, 0.0))
        sums[group] = (before[0] + float(a), before[1] + float(b))
    return sums
