"""Distances between images."""

from __future__ import annotations

from torch import Tensor


def mse(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference over batch, channels and pixels. x, y: (N, C, H, W). Scalar >= 0."""
    return (x - y).square().mean()


def l1(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference over batch, channels and pixels. x, y: (N, C, H, W). Scalar >= 0.

    The papers write a norm, which is a sum over pixels; their weights belong to the mean, which their programs take.
    """
    return (x - y).abs().mean()
