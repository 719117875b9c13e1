"""Figures and pictures on validation images while a run goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..methods.base import Method
from ..metrics.bins import PixelTally
from ..metrics.curves import average_precision
from ..metrics.image_level import auroc
from ..types import DISEASED, HEALTHY

if TYPE_CHECKING:
    from ..data.dataset import Dataset

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


def choose(dataset: Dataset, limit: int) -> list[int]:
    """At most ``limit`` labelled images, half of each class where both suffice, evenly over the table: fixed for a run."""
    healthy, diseased = by_label(dataset)
    from_diseased = min(len(diseased), max(limit // 2, limit - len(healthy)))
    return sorted(spread(healthy, limit - from_diseased) + spread(diseased, from_diseased))


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
    ) -> None:
        self.dataset, self.batch_size, self.device, self.precision = dataset, batch_size, device, precision
        self.sample = choose(dataset, limit)
        everything = choose(dataset, len(dataset))
        self.rest = sorted(set(everything) - set(self.sample))
        labels = [dataset.items[i].label for i in self.sample]
        self.ranks = min(labels.count(HEALTHY), labels.count(DISEASED)) >= LEAST_OF_EACH

    @torch.no_grad()
    def figures(self, method: Method, *, everything: bool = False) -> tuple[dict[str, float], tuple[float, float] | None]:
        """Figures by name, and (AUROC, pixel AP) on the fixed sample: the rank of these weights, None where there is none.

        ``everything`` adds the images beyond the sample to the figures, not to the rank, which stays comparable.
        """
        tally = _Tally()
        self._run(method, self.sample, tally)
        figures = tally.figures()
        # A broken score makes the AUROC NaN: such weights have no rank.
        ranked = self.ranks and math.isfinite(figures["val.auroc"])
        rank = (round(figures["val.auroc"], 3), figures.get("val.pixel_ap", 0.0)) if ranked else None
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
    def __init__(self) -> None:
        self.truth: list[int] = []
        self.scores: list[float] = []
        self.change: list[float] = []
        self.pixels = PixelTally()
        self.annotated = 0

    def add(self, dataset: Dataset, chosen: list[int], image: Tensor, prediction: Any) -> None:
        truth = [int(dataset.items[i].label == DISEASED) for i in chosen]
        self.truth += truth
        self.scores += prediction.score.float().cpu().tolist()
        if prediction.healed is not None:
            change = (image.float() - prediction.healed.float()).abs().flatten(1).mean(1).cpu().tolist()
            self.change += [c for c, t in zip(change, truth, strict=True) if not t]
        if prediction.anomaly_map is not None:
            maps = prediction.anomaly_map.float().cpu().numpy()[:, 0]
            for i, single, diseased in zip(chosen, maps, truth, strict=True):
                mask = dataset.mask(i)
                if mask is not None and np.isfinite(single).all():
                    self.annotated += diseased
                    self.pixels.add("", single, mask)

    def figures(self) -> dict[str, float]:
        """AUROC and pixel AP where both classes (with masks) are there; NaN scores make an AUROC of NaN."""
        found: dict[str, float] = {}
        if 0 < sum(self.truth) < len(self.truth):
            sound = bool(np.isfinite(self.scores).all())
            found["val.auroc"] = auroc(self.truth, self.scores) if sound else float("nan")
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
