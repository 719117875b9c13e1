"""How weights begin, for networks whose programs draw them from one normal distribution."""

from __future__ import annotations

import torch
from torch import nn

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
Kinds = tuple[type[nn.Module], ...]


@torch.no_grad()
def normal_start(
    network: nn.Module,
    spread: float = 0.02,
    *,
    layers: Kinds = CONVOLUTIONS,
    norms: Kinds = (),
    generator: torch.Generator | None = None,
) -> None:
    """Draws weights of ``layers`` from N(0, spread²) and gains of ``norms`` from N(1, spread²); their offsets become 0."""
    for part in network.modules():
        if isinstance(part, layers + norms) and isinstance(part.weight, nn.Parameter):
            part.weight.normal_(1.0 if isinstance(part, norms) else 0.0, spread, generator=generator)
            if isinstance(part.bias, nn.Parameter):
                part.bias.zero_()
