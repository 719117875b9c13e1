"""Losses between two rows of the log: summed where they arise, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import TrainingError
from ..methods.base import Losses


class Window:
    """Sums of every loss term since the last log row. On an accelerator nothing waits for the sums until :meth:`means`."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], Tensor] = {}  # (network, term, term, ...) -> (terms,)
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, losses: Mapping[str, Losses]) -> None:
        """One step's losses by network.

        Raises:
            TrainingError: a term is NaN or infinite (noticed here on the CPU, by :meth:`means` on an accelerator).
        """
        for network, terms in losses.items():
            if not terms:
                continue
            key = (network, *terms)
            values = torch.stack([t.detach().float() for t in terms.values()])
            if values.device.type == "cpu" and not bool(torch.isfinite(values).all()):
                raise _not_finite(dict(zip((f"{network}.{t}" for t in terms), values.tolist(), strict=True)))
            if key in self._sums:
                self._sums[key] += values
                self._counts[key] += 1
            else:
                self._sums[key], self._counts[key] = values, 1

    def means(self, average: Any = None) -> dict[str, float]:
        """Mean of each term over the steps in which it arose, by ``network.term``. ``average``: over processes.

        Raises:
            TrainingError: a mean is NaN or infinite.
        """
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for (network, *terms), values in self._sums.items():
            shared = average(values.clone()) if average is not None else values
            for term, value in zip(terms, shared.tolist(), strict=True):
                name = f"{network}.{term}"
                sums[name] = sums.get(name, 0.0) + value
                counts[name] = counts.get(name, 0) + self._counts[(network, *terms)]
        means = {name: sums[name] / counts[name] for name in sums}
        if not all(abs(value) < float("inf") for value in means.values()):
            raise _not_finite(means)
        return means

    def clear(self) -> None:
        self._sums.clear()
        self._counts.clear()

    def state_dict(self) -> dict[str, Any]:
        """Names and counts, the same in every process; the sums themselves are :meth:`sums`."""
        return {"terms": [[list(key), self._counts[key]] for key in self._sums]}

    def sums(self) -> list[Tensor]:
        return list(self._sums.values())

    def load_state_dict(self, state: Mapping[str, Any], sums: Iterable[Tensor], device: torch.device) -> None:
        self.clear()
        for (key, count), values in zip(state["terms"], sums, strict=True):
            self._sums[tuple(key)], self._counts[tuple(key)] = values.to(device), count


def _not_finite(values: Mapping[str, float]) -> TrainingError:
    bad = ", ".join(f"{name} = {value}" for name, value in values.items() if not abs(value) < float("inf"))
    return TrainingError(
        f"a loss is not finite: {bad}",
        hint="the last checkpoint is kept; lower the learning rate, clip gradients, or use precision 32",
    )
