"""Figures and pictures on validation images while a run goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..methods.base import Method
from ..metrics.bins import PixelTally
from ..metrics.curves import average_precision
from ..metrics.image_level import aucp, auroc
from ..types import DISEASED, HEALTHY, UNKNOWN, Needs

if TYPE_CHECKING:
    from ..data.dataset import Dataset

Rule = Literal["auto", "auroc", "aucp"]
_TRUTH = {HEALTHY: 0, DISEASED: 1, UNKNOWN: None}
LEAST_OF_EACH = 10  # fewer images of a class make an AUROC too coarse to choose weights by


def spread(indices: Sequence[int], count: int) -> list[int]:
    """``count`` of the indices (or all), evenly over their order."""
    if len(indices) <= count:
        return list(indices)
    return [indices[i] for i in np.linspace(0, len(indices) - 1, count).round().astype(int)]


def by_label(dataset: Dataset) -> tuple[list[int], list[int]]:
    """Indices of healthy and of diseased images."""
    labels = [item.label for item in dataset.items]
    return [i for i, v in enumerate(labels) if v == HEALTHY], [i for i, v in enumerate(labels) if v == DISEASED]


def choose(first: Sequence[int], second: Sequence[int], limit: int) -> list[int]:
    """At most ``limit`` indices, half of each group where both suffice, evenly over their order: fixed for a run."""
    from_second = min(len(second), max(limit // 2, limit - len(first)))
    return sorted(spread(first, limit - from_second) + spread(second, from_second))


def groups(dataset: Dataset, rule: Rule, *, healthy_share: float = 0.5, seed: int = 0) -> tuple[list[int], list[int], bool]:
    """(healthy images, the others, by AUCp): what the scores must tell apart for weights to be good.

    By AUROC the others are the diseased images. By AUCp (Rahman Siddiquee et al. 2026) they are the mixed set, and the first
    group the set known to be healthy, both as training would form them from the validation images.

    Raises:
        UsageError: AUCp is asked for and the validation images do not hold both sets.
    """
    from ..data.loader import pools

    healthy, diseased = by_label(dataset)
    unknown = [i for i, item in enumerate(dataset.items) if item.label == UNKNOWN]
    if rule == "aucp" or (rule == "auto" and healthy and unknown and not diseased):
        mixed, known, _ = pools(dataset, Needs.MIXED_AND_HEALTHY, seed, healthy_share)
        return known.tolist(), mixed.tolist(), True
    return healthy, diseased, False


class Validator:
    """Applies a method to fixed images of a dataset, image by image independent, under the run's own precision."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        limit: int,
        batch_size: int,
        device: torch.device,
        precision: Callable[[], AbstractContextManager[None]],
        rule: Rule = "auto",
        healthy_share: float = 0.5,
        seed: int = 0,
        diseased_only: bool = False,
    ) -> None:
        self.dataset, self.batch_size, self.device, self.precision = dataset, batch_size, device, precision
        first, second, by_aucp = groups(dataset, rule, healthy_share=healthy_share, seed=seed)
        if diseased_only:  # the method takes no other: nothing to tell apart, the maps alone are measured
            first = []
        self.name = "val.aucp" if by_aucp else "val.auroc"
        self.pseudo = dict.fromkeys(first, 0) | dict.fromkeys(second, 1) if by_aucp else {}
        self.sample = choose(first, second, limit)
        self.rest = sorted({*first, *second} - set(self.sample))
        from_first = len(set(first) & set(self.sample))
        # Domains that are not health, such as two modalities, are not told apart by an anomaly score.
        self.ranks = min(from_first, len(self.sample) - from_first) >= LEAST_OF_EACH and not dataset.config.domains
        self.first_of_equals = by_aucp  # as AUCp's authors choose; by AUROC the longer trained weights win

    @torch.no_grad()
    def figures(self, method: Method, *, everything: bool = False) -> tuple[dict[str, float], tuple[float, float] | None]:
        """Figures by name, and (AUROC or AUCp, pixel AP) on the fixed sample: the rank of these weights, None if there is none.

        ``everything`` adds the images beyond the sample to the figures, not to the rank, which stays comparable.
        """
        tally = _Tally(self.pseudo)
        self._run(method, self.sample, tally)
        figures = tally.figures()
        # A broken score makes the AUROC NaN: such weights have no rank.
        ranked = self.ranks and math.isfinite(figures.get(self.name, math.nan))
        # Masks and labels stay out of a choice that is to do without them.
        second = 0.0 if self.pseudo else figures.get("val.pixel_ap", 0.0)
        rank = (round(figures[self.name], 3), second) if ranked else None
        if everything and self.rest:
            self._run(method, self.rest, tally)
            figures = tally.figures()
        return figures, rank

    def _run(self, method: Method, indices: list[int], tally: _Tally) -> None:
        for start in range(0, len(indices), self.batch_size):
            chosen = indices[start : start + self.batch_size]
            image = torch.as_tensor(self.dataset.images(chosen)).to(self.device)
            with self.precision():
                prediction = method.predict(image)
            tally.add(self.dataset, chosen, image, prediction)


class _Tally:
    """pseudo: 0 for images known to be healthy, 1 for those of the mixed set, by index; empty without AUCp."""

    def __init__(self, pseudo: Mapping[int, int]) -> None:
        self.pseudo = pseudo
        self.truth: list[int | None] = []  # None: unknown
        self.sets: list[int] = []
        self.scores: list[float] = []
        self.change: list[float] = []
        self.pixels = PixelTally()
        self.annotated = 0

    def add(self, dataset: Dataset, chosen: list[int], image: Tensor, prediction: Any) -> None:
        truth = [_TRUTH[dataset.items[i].label] for i in chosen]
        self.truth += truth
        self.sets += [self.pseudo[i] for i in chosen if self.pseudo]
        self.scores += prediction.score.float().cpu().tolist()
        if prediction.healed is not None:
            change = (image.float() - prediction.healed.float()).abs().flatten(1).mean(1).cpu().tolist()
            self.change += [c for c, t in zip(change, truth, strict=True) if t == 0]
        if prediction.anomaly_map is not None:
            maps = prediction.anomaly_map.float().cpu().numpy()[:, 0]
            for i, single, diseased in zip(chosen, maps, truth, strict=True):
                mask = dataset.mask(i)
                if mask is not None and np.isfinite(single).all():
                    self.annotated += diseased == 1
                    self.pixels.add("", single, mask)

    def figures(self) -> dict[str, float]:
        """AUROC, AUCp and pixel AP where both classes (with masks) are there; NaN scores make a figure of NaN."""
        found: dict[str, float] = {}
        sound = bool(np.isfinite(self.scores).all())
        known = [(t, s) for t, s in zip(self.truth, self.scores, strict=True) if t is not None]
        if {t for t, _ in known} == {0, 1}:
            found["val.auroc"] = auroc([t for t, _ in known], [s for _, s in known]) if sound else float("nan")
        if self.sets:
            scores, mixed = np.array(self.scores), np.array(self.sets, bool)
            found["val.aucp"] = aucp(scores[~mixed], scores[mixed]) if sound else float("nan")
        if self.change:
            found["val.change"] = float(np.mean(self.change))
        if self.annotated:
            found["val.pixel_ap"] = float(average_precision(*self.pixels.bins().pooled()))
        return found


@torch.no_grad()
def picture_rows(
    method: Method,
    dataset: Dataset,
    indices: Sequence[int],
    device: torch.device,
    precision: Callable[[], AbstractContextManager[None]],
) -> dict[str, NDArray[np.float32]]:
    """input (n, C, H, W), and where the method gives them healed (n, C, H, W) and map (n, H, W)."""
    image = torch.as_tensor(dataset.images(list(indices))).to(device)
    with precision():
        prediction = method.predict(image)
    rows = {"input": image.float().cpu().numpy()}
    if prediction.healed is not None:
        rows["healed"] = prediction.healed.float().cpu().numpy()
    if prediction.anomaly_map is not None:
        rows["map"] = prediction.anomaly_map.float().cpu().numpy()[:, 0]
    return rows
