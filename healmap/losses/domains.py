"""Domain classification."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def exclusive(logits: Tensor, codes: Tensor) -> Tensor:
    """Softmax cross-entropy, mean over the batch. logits, codes: (N, K), codes one-hot. Scalar >= 0. StarGAN eqs. (2), (3)."""
    logits = at_least_float32(logits)
    return F.cross_entropy(logits, codes.to(logits.dtype))


def independent(logits: Tensor, codes: Tensor) -> Tensor:
    """Binary cross-entropy summed over the attributes, mean over the batch. Scalar >= 0.

    logits, codes: (N, K), codes in {0, 1}. The sum over attributes is the published program's reduction: with five attributes
    the term is five times a mean.
    """
    logits = at_least_float32(logits)
    return F.binary_cross_entropy_with_logits(logits, codes.to(logits.dtype), reduction="sum") / len(logits)
