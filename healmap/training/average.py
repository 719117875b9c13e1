"""Exponential moving average of weights: w̄ <- d w̄ + (1 - d) w after every step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..methods.base import Method


class WeightAverage:
    """Float32 averages of the parameters and buffers of the modules that ``method.averaged`` names.

    The decay grows as min(decay, (1 + n) / (10 + n)) with the number n of updates, so that a short run is not dominated by its
    random start. Buffers that are not floating point are copied. With decay 0 nothing is averaged.
    """

    def __init__(self, method: Method, decay: float) -> None:
        self.decay, self.updates = decay, 0
        live: dict[str, Tensor] = {}
        if decay:
            for part in method.averaged:
                module = method.get_submodule(part)
                live |= {f"{part}.{k}": v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
        self._names = [k for k, v in live.items() if v.is_floating_point()]
        self._live = [live[k] for k in self._names]  # share memory with the module's own tensors
        self._mean = [v.detach().float().clone() for v in self._live]
        self._copied = {k: v for k, v in live.items() if not v.is_floating_point()}

    def __bool__(self) -> bool:
        return bool(self._mean)

    @torch.no_grad()
    def update(self) -> None:
        if not self._mean:
            return
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        live = [v.float() for v in self._live]  # no copy where it is float32 already
        torch._foreach_lerp_(self._mean, live, 1 - decay)
        self.updates += 1

    def tensors(self) -> dict[str, Tensor]:
        """Averages by state-dict name."""
        return dict(zip(self._names, self._mean, strict=True))

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """Inside, the method's own weights are the averages; afterwards they are back, bit for bit."""
        kept = [v.clone() for v in self._live]
        self._fill(self._mean)
        try:
            yield
        finally:
            self._fill(kept)

    @torch.no_grad()
    def _fill(self, values: list[Tensor]) -> None:
        for target, value in zip(self._live, values, strict=True):
            target.copy_(value)

    def state_dict(self) -> dict[str, object]:
        return {"updates": self.updates, "mean": self.tensors()}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        self.updates = int(state["updates"])
        for name, mean in zip(self._names, self._mean, strict=True):
            mean.copy_(state["mean"][name])
