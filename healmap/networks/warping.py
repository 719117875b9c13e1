"""Bicubic sampling of an image along a displacement field."""

from __future__ import annotations

import torch
from torch import Tensor

A = -0.75  # Keys' free parameter; the value that torch and OpenCV use


def pixel_grid(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Column and row number of every pixel, (1, W) and (H, 1), on ``like``'s device, float32."""
    x = torch.arange(width, device=like.device, dtype=torch.float32)
    y = torch.arange(height, device=like.device, dtype=torch.float32)
    return x[None, :], y[:, None]


def warp(image: Tensor, displacement: Tensor) -> Tensor:
    """``out(p) = image(p + d(p))``: a displacement says where a pixel's value is fetched from.

    image: (N, C, H, W). displacement: (N, 2, H, W) in pixels, channel 0 along x (columns, to the right), channel 1 along y
    (rows, downwards). Bicubic (Keys 1981, eq. 4, a = -0.75), beyond the border the border's values. Returns float32.

    The same numbers as ``grid_sample(mode="bicubic", padding_mode="border", align_corners=True)``, with two differences that
    matter here: a displacement of zero gives the image back bit for bit (grid_sample's round trip through [-1, 1] does not),
    and the gradient of the displacement is deterministic on a GPU as well. The image's gradient is a scatter and is not.
    """
    n, c, height, width = image.shape
    d = displacement.float()
    x, y = pixel_grid(height, width, d)
    # Positions far outside would only repeat the border; the clamp keeps them finite and the integers small.
    base_x, frac_x = _split(x + d[:, 0].clamp(-width, width))  # (N, H, W)
    base_y, frac_y = _split(y + d[:, 1].clamp(-height, height))
    weights_x, weights_y = _keys(frac_x), _keys(frac_y)
    columns = [(base_x + k).clamp(0, width - 1) for k in range(-1, 3)]
    flat, out = image.float().flatten(2), torch.zeros(image.shape, device=d.device)
    for row, weight_y in zip(range(-1, 3), weights_y, strict=True):
        start = (base_y + row).clamp(0, height - 1) * width
        line = torch.zeros_like(out)
        for column, weight_x in zip(columns, weights_x, strict=True):
            index = (start + column).view(n, 1, -1).expand(-1, c, -1)
            line = line + weight_x[:, None] * flat.gather(2, index).view(n, c, height, width)
        out = out + weight_y[:, None] * line
    return out


def _split(position: Tensor) -> tuple[Tensor, Tensor]:
    base = position.detach().floor()
    return base.long(), position - base


def _keys(t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weights of the four neighbours at -1, 0, 1, 2 for a fraction ``t`` in [0, 1); at t = 0 exactly (0, 1, 0, 0)."""
    s = 1 - t
    return _outer(t), _inner(t), _inner(s), _outer(s)


def _inner(distance: Tensor) -> Tensor:
    """Keys' kernel for a distance in [0, 1]."""
    return 1 - ((A + 3) - (A + 2) * distance) * distance**2


def _outer(t: Tensor) -> Tensor:
    """Keys' kernel for a distance 1 + t in [1, 2]."""
    return A * t * (1 - t) ** 2
