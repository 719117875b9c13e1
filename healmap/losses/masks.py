"""The two terms of the focus loss, HealthyGAN eq. (7), after Nizan and Tal 2020."""

from __future__ import annotations

from typing import Literal

from torch import Tensor


def mask_size(mask: Tensor, over: Literal["image", "batch"] = "image") -> Tensor:
    """(Σ M_i / n)², the first term of eq. (7). mask: (N, 1, H, W) in [0, 1]. Scalar in [0, 1].

    over="image": n counts the pixels of one mask, as the paper defines it; mean over the batch, so that an image's share
    does not depend on its neighbours. over="batch": n counts all pixels of the batch, as the authors' code does.
    """
    return (mask.mean(dim=(1, 2, 3)) if over == "image" else mask.mean()).square().mean()


def mask_binary(mask: Tensor, eps: float = 0.01) -> Tensor:
    """(1/n) Σ 1 / (|M_i - 0.5| + ε) - 1 / (0.5 + ε), the second term of eq. (7). mask: (N, 1, H, W) in [0, 1]. Scalar >= 0.

    ε and the constant, which makes the minimum zero at M in {0, 1}, are the authors' code's; the constant has no gradient.
    """
    return (1 / ((mask - 0.5).abs() + eps)).mean() - 1 / (0.5 + eps)
