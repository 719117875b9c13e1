"""Domain classification."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def exclusive(logits: Tensor, codes: Tensor) -> Tensor:
    """Softmax cross-entropy, mean over the batch. logits, codes: (N, K), codes one-hot. Scalar >= 0. StarGAN eqs. (2), (3)."""
    return F.cross_entropy(logits.to(codes.dtype), codes)


def independent(logits: Tensor, codes: Tensor) -> Tensor:
    """Binary cross-entropy summed over the attributes, mean over the batch. Scalar >= 0.

    logits, codes: (N, K), codes in {0, 1}. The sum over attributes is the published program's reduction: with five attributes the term is five times a mean.
    """
    return F.binary_cross_entropy_with_logits(logits.to(codes.dtype), codes, reduction="sum") / len(logits)
