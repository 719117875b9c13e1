"""Optimisers in their fastest exact form."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn
from torch.optim import Adam

_FUSED = ("cpu", "cuda", "mps")  # devices with a fused Adam


def adam(parameters: Iterable[nn.Parameter], *, lr: float, betas: tuple[float, float]) -> Adam:
    """Adam, updating each tensor in one pass over memory where the device offers it (so build it once the module is there)."""
    given = list(parameters)
    fused = all(p.device.type in _FUSED and p.is_floating_point() for p in given)
    return Adam(given, lr=lr, betas=betas, fused=fused)
