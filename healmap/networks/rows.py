"""Convolutions from or to few channels, such as a grey image's, that keep a processor busy.

Processor libraries compute channels in groups of 8 or 16, so that a convolution to one channel does the work of a whole group.
Here a kernel's rows become channels: as many one-row convolutions, whose results are added, each one row further down.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
import torch.nn.functional as F
from torch import Tensor

GROUP = 8  # channels; with fewer, rows pay


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias)``. x: (N, C, H, W), weight: (out, C, k, l) -> (N, out, H - k + 1, W - l + 1)."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias)
    if weight.shape[0] < GROUP:
        return to_few(x, weight, bias)
    if weight.shape[1] < GROUP and x.requires_grad:  # forward there is nothing to gain: the gradient goes to few channels
        return from_few(x, weight, bias)
    return F.conv2d(x, weight, bias)


def to_few(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y[p] = Σ_u z_u[p + u],  z_u = (row u of the kernel) * x."""
    out, channels, k, length = weight.shape
    height = x.shape[2] - k + 1
    z = F.conv2d(x, weight.permute(0, 2, 1, 3).reshape(out * k, channels, 1, length))  # (N, out k, H, W-l+1)
    rows = z.unflatten(1, (out, k)).unbind(2)
    y = reduce(add, (row[:, :, u : u + height] for u, row in enumerate(rows)))
    return y if bias is None else y + bias.to(y.dtype).view(-1, 1, 1)


def from_few(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same with the image's own shifted rows as its channels, so that the gradient reaches them as :func:`to_few` adds."""
    out, channels, k, length = weight.shape
    height = x.shape[2] - k + 1
    shifted = torch.cat([x[:, :, u : u + height] for u in range(k)], dim=1)  # (N, k C, H-k+1, W)
    return F.conv2d(shifted, weight.permute(0, 2, 1, 3).reshape(out, k * channels, 1, length), bias)
