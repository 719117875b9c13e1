"""Segmentation terms: does the translated image still show the shapes of its source?"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def pixel_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-(1/N) Σ_i log S(x)_i[y_i]: Zhang et al., CVPR 2018, one of the two terms of L_shape. Mean over pixels and batch.

    logits: (N, K, H, W), S(x) = softmax over K. labels: (N, H, W) int64 in 0..K-1. Scalar >= 0. As L_shape, S is the segmenter
    of the *target* domain, x the *translated* image and y the label map of its *source*.
    """
    return -at_least_float32(logits).log_softmax(1).gather(1, labels.unsqueeze(1)).mean()


def soft_dice(logits: Tensor, labels: Tensor, eps: float = 1.0) -> Tensor:
    """1 - (2 Σ p y + ε) / (Σ p + Σ y + ε), mean over the classes but the background: after Milletari et al., 3DV 2016.

    logits: (N, K, H, W), p = softmax over K. labels: (N, H, W) int64 in 0..K-1. Scalar in [0, 1]. Sums run over the pixels of
    the whole batch, since many images show nothing of a class; ε (ours) keeps a batch without the class quiet.
    """
    p = at_least_float32(logits).softmax(1)[:, 1:]
    y = F.one_hot(labels, logits.shape[1]).movedim(-1, 1)[:, 1:].to(p.dtype)
    both, sizes = (p * y).sum((0, 2, 3)), (p + y).sum((0, 2, 3))
    return (1 - (2 * both + eps) / (sizes + eps)).mean()
