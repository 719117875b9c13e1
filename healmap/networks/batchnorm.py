"""Batch norm whose inference is said, not left to chance."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from .norm import instance_norm

Statistics = Literal["stored", "image"]


class BatchNorm(nn.BatchNorm2d):
    """Statistics of the batch while training; in ``eval()`` the stored ones, or those of each image by itself.

    "image" is what a program computes that never leaves training mode and is shown one image at a time. Programs that are
    shown more let an image's score depend on its neighbours; that is not offered.
    """

    def __init__(self, channels: int, statistics: Statistics = "stored", *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.statistics = statistics

    def forward(self, x: Tensor) -> Tensor:
        if self.training or self.statistics == "stored":
            return super().forward(x)
        # The per-image norm reads memory in order: a crop's gaps would be taken for pixels.
        dense = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
        return instance_norm(x if dense else x.contiguous(), self.weight, self.bias, eps=self.eps)
