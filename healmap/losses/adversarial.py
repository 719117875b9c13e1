"""Adversarial terms: Wasserstein, least squares and logarithmic."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import at_least_float32


def average(source: Tensor) -> Tensor:
    """E[D(x)]: mean of the critic's patch map over batch and patches. source: (N, 1, h, w), unbounded. Scalar."""
    return at_least_float32(source).mean()


def least_squares(source: Tensor, target: float) -> Tensor:
    """E[(D(x) - target)²]: Mao et al. 2017, mean over batch and patches. source: (N, 1, h, w), unbounded. Scalar >= 0."""
    return (at_least_float32(source) - target).square().mean()


def logarithmic(source: Tensor, target: float) -> Tensor:
    """Binary cross-entropy of the critic's logits with a constant target in [0, 1]: Goodfellow et al. 2014, the generator's
    form that does not saturate. source: (N, 1, h, w) logits. Scalar >= 0, mean over batch and patches."""
    source = at_least_float32(source)
    return F.binary_cross_entropy_with_logits(source, torch.full_like(source, target))


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, alpha: Tensor | None = None) -> Tensor:
    """Gulrajani et al. 2017:  E[(‖∇_x̂ D(x̂)‖₂ - 1)²],  x̂ = α·real + (1 - α)·fake.

    critic: (N, C, H, W) -> (N, 1, h, w). real, fake: (N, C, H, W); no gradient flows into them. alpha: (N, 1, 1, 1) in
    [0, 1], drawn uniformly if None. Returns a scalar >= 0: the mean over the batch; the norm is over all channels and pixels of
    an image. As in the authors' code of the StarGAN family the *sum* of the patch map is differentiated, although the critic's
    other terms take its mean.
    """
    if alpha is None:
        alpha = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    between = torch.lerp(fake.detach(), real.detach(), alpha).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    norm = torch.linalg.vector_norm(at_least_float32(gradient).flatten(1), dim=1)
    return (norm - 1).square().mean()
