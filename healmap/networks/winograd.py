"""Convolutions 3 x 3 with 4/9 of the multiplications: Winograd's minimal filtering F(2 x 2, 3 x 3), Lavin and Gray, CVPR 2016.

Two neighbours y0 = d0 w0 + d1 w1 + d2 w2 and y1 = d1 w0 + d2 w1 + d3 w2 of a row take six products. Four are enough:

    m = (d0 - d2) w0,  (d1 + d2) (w0 + w1 + w2)/2,  (d2 - d1) (w0 - w1 + w2)/2,  (d1 - d3) w2
    y = m0 + m1 + m2,  m1 - m2 - m3

Along both axes that makes 16 products of 36, each a matrix product over the channels. The sums before and after cost memory
traffic, so it pays for many channels only. In single precision results are as exact as direct ones: relative error 4e-7 against
2e-7 to 9e-7, depending on the layout. In bfloat16 the rounded m leave 7e-3 against 2e-3: little beside what bfloat16 does
to a generator's gradients anyway, but nothing for predictions, which are computed directly.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# On both sides, and in all images; with fewer the sums take what the products save. Measured.
CHANNELS, TILES = 192, 128

# (w0, w1, w2) -> the four factors above.
FACTORS = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``F.conv2d(x, weight, bias)`` for kernels 3 x 3. x: (N, C, H, W) -> (N, out, H - 2, W - 2). First derivatives only on
    processors; without any to come it computes directly."""
    if not (torch.is_grad_enabled() and pays(x, weight)) or torch.compiler.is_compiling():
        return F.conv2d(x, weight, bias)
    kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    return _Winograd.apply(x.to(kind), weight.to(kind), None if bias is None else bias.to(kind))


def pays(x: Tensor, weight: Tensor) -> bool:
    n, _, height, width = x.shape
    if x.device.type != "cpu" or weight.shape[2:] != (3, 3) or height % 2 or width % 2:
        return False
    return min(weight.shape[:2]) >= CHANNELS and n * (height // 2 - 1) * (width // 2 - 1) >= TILES


class _Winograd(torch.autograd.Function):
    """x: (N, C, H, W), weight: (out, C, 3, 3), bias: (out,), all of one precision. Tiles t = N (H/2 - 1) (W/2 - 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()
        u = factors(weight)
        ctx.save_for_backward(x, u)
        v = spread(x)
        m = torch.bmm(v.flatten(1, -2), u.mT)  # (16, t, out)
        y = collect(m.view(*v.shape[:-1], -1))
        if bias is not None:
            y += bias
        return y.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:  # type: ignore[override]
        x, u = ctx.saved_tensors
        grad_m = collect_adjoint(grad.permute(0, 2, 3, 1).contiguous())
        m = grad_m.flatten(1, -2)  # (16, t, out)
        grad_x = grad_w = grad_b = None
        if ctx.needs_input_grad[0]:
            grad_v = torch.bmm(m, u).view(*grad_m.shape[:-1], -1)
            grad_x = spread_adjoint(grad_v).permute(0, 3, 1, 2)
        if ctx.needs_input_grad[1]:
            grad_w = factors_adjoint(torch.bmm(m.mT, spread(x).flatten(1, -2)))
        if ctx.needs_input_grad[2]:
            grad_b = grad.sum((0, 2, 3))
        return grad_x, grad_w, grad_b


# Along both axes. Images are (N, H, W, C); what stands for the four products of each axis comes first, as one index of 16.


def factors(weight: Tensor) -> Tensor:
    """(out, C, 3, 3) -> (16, out, C)."""
    both = _both(weight)
    return (both @ weight.permute(3, 2, 0, 1).reshape(9, -1)).view(16, *weight.shape[:2])


def factors_adjoint(u: Tensor) -> Tensor:
    return (_both(u).mT @ u.flatten(1)).view(3, 3, *u.shape[1:]).permute(2, 3, 1, 0)


def _both(like: Tensor) -> Tensor:
    one = torch.tensor(FACTORS, dtype=like.dtype)
    return torch.kron(one, one)


def spread(x: Tensor) -> Tensor:
    """(N, H, W, C) -> (16, N, H/2 - 1, W/2 - 1, C)."""
    return _spread(_spread(x, 1), 3).flatten(0, 1)


def spread_adjoint(v: Tensor) -> Tensor:
    return _spread_adjoint(_spread_adjoint(v.unflatten(0, (4, 4)), 3), 1)


def collect(m: Tensor) -> Tensor:
    """(16, N, h, w, C) -> (N, 2 h, 2 w, C)."""
    return _collect(_collect(m.unflatten(0, (4, 4)), 3), 1)


def collect_adjoint(y: Tensor) -> Tensor:
    return _collect_adjoint(_collect_adjoint(y, 1), 3).flatten(0, 1)


# Along one axis, counted without the index of products that comes or goes.


def _spread(x: Tensor, axis: int) -> Tensor:
    """d -> (d0 - d2, d1 + d2, d2 - d1, d1 - d3), d = four neighbours from every second place on."""
    d0, d1, d2, d3 = _neighbours(x, axis)
    v = x.new_empty(4, *d0.shape)
    torch.sub(d0, d2, out=v[0])
    torch.add(d1, d2, out=v[1])
    torch.sub(d2, d1, out=v[2])
    torch.sub(d1, d3, out=v[3])
    return v


def _spread_adjoint(v: Tensor, axis: int) -> Tensor:
    shape = list(v.shape[1:])
    shape[axis] = 2 * shape[axis] + 2
    x = v.new_empty(shape)
    x.narrow(axis, shape[axis] - 2, 2).zero_()
    d0, d1, d2, d3 = _neighbours(x, axis)
    d0.copy_(v[0])
    torch.sub(v[1], v[2], out=d1)
    d1 += v[3]
    d2 += (v[1] + v[2]).sub_(v[0])
    d3 -= v[3]
    return x


def _collect(m: Tensor, axis: int) -> Tensor:
    """m -> (m0 + m1 + m2, m1 - m2 - m3), neighbours along the axis."""
    shape = list(m.shape[1:])
    shape[axis] *= 2
    y = m.new_empty(shape)
    even, odd = _halves(y, axis)
    torch.add(m[0], m[1] + m[2], out=even)
    torch.sub(m[1] - m[2], m[3], out=odd)
    return y


def _collect_adjoint(y: Tensor, axis: int) -> Tensor:
    even, odd = _halves(y, axis)
    m = y.new_empty(4, *even.shape)
    m[0] = even
    torch.add(even, odd, out=m[1])
    torch.sub(even, odd, out=m[2])
    torch.neg(odd, out=m[3])
    return m


def _neighbours(x: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (even, odd), last = _halves(x, axis), x.shape[axis] // 2 - 1
    return even.narrow(axis, 0, last), odd.narrow(axis, 0, last), even.narrow(axis, 1, last), odd.narrow(axis, 1, last)


def _halves(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Every second place from the first and from the second on."""
    pairs = x.unflatten(axis, (-1, 2))
    return pairs.select(axis + 1, 0), pairs.select(axis + 1, 1)
