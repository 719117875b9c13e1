"""Class activation maps: which places of a classifier's last map speak for disease.

Symbols: f_k(u, v) the last map, S_c the logits, Z the number of its places, S = log sum_{c >= 1} exp S_c - S_0 the log-odds of
disease (two classes: S_1 - S_0), so that P(disease) = sigmoid(S) = 1 - P(healthy). All maps here are of S, signed, and raw:
scaled by its own extremes, as the usual scripts do, every image's map would be as bright as any other's.

    CAM          M = Σ_k w_k f_k                     Zhou et al., CVPR 2016, eq. (2): for a linear head on the global mean
    by place     M = Z Σ_k ∂S/∂f_k(u, v) f_k         Draelos & Carin 2020 (HiResCAM): for any head; with that one the CAM
    Grad-CAM     M = Σ_k α_k f_k, α_k = (1/Z) Σ_{u,v} ∂S/∂f_k(u, v)    Selvaraju et al., ICCV 2017, eqs. (1), (2)

With a linear head on the global mean ∂S/∂f_k = w_k / Z everywhere, so that Grad-CAM is the CAM divided by Z.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..losses.precision import at_least_float32


def log_odds(logits: Tensor) -> Tensor:
    """S of exclusive classes, the first of them healthy. logits: (N, K). Returns (N,), at least float32."""
    logits = at_least_float32(logits)
    return logits[:, 1:].logsumexp(1) - logits[:, 0]


def cam(f: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
    """Σ_k w_k f_k with w = ∂S/∂(mean of f) = Σ_{c >= 1} P(c | diseased) w^c - w^0; for two classes w^1 - w^0.

    f: (N, k, h, w). weight: (K, k) of the linear layer on the mean of f. logits: (N, K), its output, bias included.
    Returns (N, 1, h, w); its mean is S but for the bias.
    """
    weight = at_least_float32(weight)
    given_disease = at_least_float32(logits)[:, 1:].softmax(1)  # (N, K - 1)
    w = (given_disease[:, :, None] * weight[1:]).sum(1) - weight[0]  # (N, k)
    return (w[:, :, None, None] * at_least_float32(f)).sum(1, keepdim=True)


def gradients(head: Callable[[Tensor], Tensor], f: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N, K) = head(f), and ∂S/∂f (N, k, h, w), whether or not gradients are on outside; head's weights get none."""
    with torch.enable_grad():
        f = f.detach().requires_grad_()
        logits = head(f)
        (g,) = torch.autograd.grad(log_odds(logits).sum(), f)  # of a sum over images: each image's own
    return logits.detach(), g


def by_place(f: Tensor, g: Tensor) -> Tensor:
    """Z Σ_k g_k f_k. f, g = ∂S/∂f: (N, k, h, w). Returns (N, 1, h, w).

    For a head of linear layers and ReLUs its mean is S but for the biases, as of a CAM.
    """
    return (at_least_float32(g) * at_least_float32(f)).sum(1, keepdim=True) * f[0, 0].numel()


def grad_cam(f: Tensor, g: Tensor) -> Tensor:
    """Σ_k α_k f_k, α_k the mean of g_k over places; before the ReLU of eq. (2). f, g: (N, k, h, w). Returns (N, 1, h, w)."""
    alpha = at_least_float32(g).mean((2, 3), keepdim=True)
    return (alpha * at_least_float32(f)).sum(1, keepdim=True)


def enlarge(evidence: Tensor, size: tuple[int, int]) -> Tensor:
    """Evidence for disease at the image's size: bilinear, then what is above zero. (N, 1, h, w) -> (N, 1, *size) >= 0."""
    return F.relu(F.interpolate(evidence, size, mode="bilinear", align_corners=False))
