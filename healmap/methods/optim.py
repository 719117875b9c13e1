"""Optimisers in their fastest exact form."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Adam, RMSprop

_FUSED = ("cpu", "cuda", "mps")  # devices with a fused Adam


def adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Adam:
    """Adam, updating each tensor in one pass over memory where the device offers it (so build it once the module is there)."""
    given = list(parameters)
    fused = all(p.device.type in _FUSED and p.is_floating_point() for p in given)
    return Adam(given, lr=lr, betas=betas, weight_decay=weight_decay, amsgrad=amsgrad, fused=fused)


def rmsprop(parameters: Iterable[nn.Parameter], *, lr: float) -> RMSprop:
    """RMSProp as TensorFlow has it: decay 0.9, and mean squares that begin at 1, so that first steps are small."""
    optimiser = RMSprop(parameters, lr=lr, alpha=0.9, eps=1e-5)  # TensorFlow's is 1e-10 beneath the root: the same where v is 0
    for p in optimiser.param_groups[0]["params"]:
        optimiser.state[p] = {"step": torch.zeros(()), "square_avg": torch.ones_like(p)}
    return optimiser
