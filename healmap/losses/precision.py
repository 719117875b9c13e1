"""Sums over many values are taken in float32 even where the networks compute in half precision."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """x in float32, or in float64 if it is of that precision already."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
