"""One update of one network, with Fabric's precision and over all processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..methods.base import Optimisers

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class FabricOptimisers(Optimisers):
    """The trainer's form of ``Optimisers``.

    Networks are not wrapped for data-parallel training: a step runs them several times and differentiates twice, which the
    wrapper's hooks do not bear. Instead the finished gradients are averaged over the processes, once per update.
    """

    def __init__(self, fabric: Fabric, optimisers: Mapping[str, Optimizer], *, clip: float = 0.0) -> None:
        super().__init__(optimisers, clip=clip)
        self._fabric = fabric
        self._stepping: dict[str, Any] = {name: fabric.setup_optimizers(o) for name, o in self.optimisers.items()}

    def backward(self, loss: Tensor, parameters: list[Tensor]) -> None:
        # The forward pass chose each operation's precision; the backward pass follows it and must not choose again.
        with torch.autocast(loss.device.type, enabled=False):
            self._fabric.backward(loss, inputs=parameters)

    def finish(self, name: str, optimiser: Optimizer, parameters: list[Tensor]) -> None:
        if self._fabric.world_size > 1:
            self._average_gradients(parameters)
        if self.clip:
            # With fp16 the gradients are still scaled (a fused optimiser unscales them itself): scale the limit instead.
            scaler = getattr(self._fabric.strategy.precision, "scaler", None)
            nn.utils.clip_grad_norm_(parameters, self.clip * (scaler.get_scale() if scaler is not None else 1.0))
        self._stepping[name].step()

    def _average_gradients(self, parameters: list[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat: Any = self._fabric.all_reduce(torch.cat([g.reshape(-1) for g in gradients]), reduce_op="mean")
        for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(part.view(g.shape))
