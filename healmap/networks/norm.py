"""Instance normalisation that keeps pace with the convolutions around it.

Always the statistics of the image itself, in training and at inference: the published programs of the StarGAN family never
leave training mode, so these are the statistics behind their figures. Running statistics are neither kept nor used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_batch_norm = torch.ops.aten.native_batch_norm
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward
_relu_backward = torch.ops.aten.threshold_backward
_LAYOUTS = (torch.contiguous_format, torch.channels_last)


class _PerImage(torch.autograd.Function):
    """Instance norm (and ReLU) as a batch norm of each image alone.

    On processors torch's instance norm first copies channels-last images into planes and back, and works in a second pass
    over memory. Batch norm reads channels-last and bfloat16 natively, and image by image the ReLU finds its input in the cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool) -> Tensor:
        y = torch.empty_like(x)
        mean, invstd = torch.empty(2, *x.shape[:2], dtype=weight.dtype, device=x.device)
        for i in range(len(x)):
            one = slice(i, i + 1)
            kept = {"save_mean": mean[i], "save_invstd": invstd[i]}
            _batch_norm.out(x[one], weight, bias, None, None, True, 0.0, eps, out=y[one], **kept)
            if relu:
                y[i].relu_()
        ctx.save_for_backward(x, y if relu else None, weight, mean, invstd)
        ctx.eps = eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:  # type: ignore[override]
        x, y, weight, mean, invstd = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        grad_x = torch.empty_like(x) if wanted[0] else None
        grad_w, grad_b = torch.zeros_like(weight), torch.zeros_like(weight)
        for i in range(len(x)):
            one = slice(i, i + 1)
            g = grad[one] if y is None else _relu_backward(grad[one], y[one], 0)
            gx, gw, gb = _batch_norm_backward(g, x[one], weight, None, None, mean[i], invstd[i], True, ctx.eps, wanted)
            if grad_x is not None:
                grad_x[one] = gx
            if wanted[1]:
                grad_w += gw
            if wanted[2]:
                grad_b += gb
        return grad_x, grad_w if wanted[1] else None, grad_b if wanted[2] else None, None, None


def instance_norm(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, *, eps: float = 1e-5, relu: bool = False
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias per image and channel, then ReLU if asked.

    x: (N, C, H, W); weight, bias: (C,), may be float32 where x is of half precision; None: 1 and 0. First derivatives only on
    processors.
    """
    if x.device.type == "cpu" and not torch.compiler.is_compiling():
        if weight is None or bias is None:  # without them half precision would also keep its statistics in half precision
            weight = torch.ones(x.shape[1], dtype=torch.promote_types(x.dtype, torch.float32))
            bias = torch.zeros_like(weight)
        return _PerImage.apply(_dense(x), weight, bias, eps, relu)
    y = F.instance_norm(x, weight=weight, bias=bias, eps=eps)
    return F.relu(y) if relu else y


def _dense(x: Tensor) -> Tensor:
    """Batch norm that writes into given results takes images to be laid out in one of two ways, and misreads crops."""
    return x if any(x.is_contiguous(memory_format=layout) for layout in _LAYOUTS) else x.contiguous()


class InstanceNorm(nn.Module):
    """Instance norm with per-image statistics, optionally followed by a ReLU.

    affine: with a learnt weight and bias per channel. Stored running statistics of published weights are accepted and ignored
    when a state dict is loaded.
    """

    def __init__(self, channels: int, *, relu: bool = False, affine: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None
        self.channels, self.relu, self.eps = channels, relu, eps

    def forward(self, x: Tensor) -> Tensor:
        return instance_norm(x, self.weight, self.bias, eps=self.eps, relu=self.relu)

    def extra_repr(self) -> str:
        return f"{self.channels}, relu={self.relu}, affine={self.weight is not None}"

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            state_dict.pop(prefix + name, None)  # type: ignore[attr-defined]
        super()._load_from_state_dict(state_dict, prefix, *args)
