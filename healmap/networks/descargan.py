"""Generator and discriminator of DeScarGAN (Wolleb et al., MICCAI 2020).

Parameters stand in the published order and under the published names (``g``: healthy, ``k``: diseased), so that published
weights load. A call has one target class: it fills the label planes and chooses the branch.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..errors import ConfigError

BRANCHES = ("g", "k")  # by class: healthy ("gesund"), diseased ("krank")
_DEEPEST_G, _DEEPEST_D = 8, 32  # how much smaller the deepest maps of the two networks are than the image


class BatchNorm(nn.BatchNorm2d):
    """Batch norm with the statistics of the call in training and of each image alone at inference, optionally with a ReLU.

    The published program stays in training mode and gives its generator one image at a time. The running statistics are kept
    as published; they are used at inference only where ``running`` asks for it, which is another function.
    """

    def __init__(self, channels: int, *, relu: bool = True, running: bool = False) -> None:
        super().__init__(channels, momentum=0.01)
        self.relu, self.running = relu, running

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:  # type: ignore[override]
        """x: (N, C, H, W) without the bias ``shift`` (C,) of its convolution, which no statistics of the call would let pass.

        So it is not added: only the running mean knows it.
        """
        if self.training:
            y = self._of_the_call(x, shift)
        elif self.running:
            mean, var = self.get_buffer("running_mean") - shift.detach(), self.get_buffer("running_var")
            y = F.batch_norm(x, mean, var, self.weight, self.bias, False, 0.0, self.eps)
        elif _own_sums(x):
            y = torch.cat([_Norm.apply(one, self.weight, self.bias, self.eps)[0] for one in x.split(1)])
        else:
            y = F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)
        return F.relu_(y) if self.relu else y

    def _of_the_call(self, x: Tensor, shift: Tensor) -> Tensor:
        """With the statistics of all images together, which move the running ones."""
        mean, var, share = self.get_buffer("running_mean"), self.get_buffer("running_var"), self.momentum or 0.0
        if _own_sums(x):
            y, m, v = _Norm.apply(x, self.weight, self.bias, self.eps)
            n = x.numel() // len(m)
            m, v = mean.lerp(m, share), var.lerp(v * (n / max(n - 1, 1)), share)
        else:
            m, v = mean.clone(), var.clone()  # autograd holds on to what it is given
            y = F.batch_norm(x, m, v, self.weight, self.bias, True, share, self.eps)
        with torch.no_grad():
            mean.copy_(m + share * shift)
            var.copy_(v)
            self.get_buffer("num_batches_tracked").add_(1)
        return y


def _own_sums(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


class _Norm(torch.autograd.Function):
    """Torch's own batch norm with better sums.

    On processors it adds the pixels of a channels-last map one after the other. Of 256 x 256 single-precision numbers that
    leaves an error of 4e-5 in the deviation, and after the seventeen norms here 5e-4 in the image. Every column of the
    map is taken as channels of its own first, in the same memory and time, and leaves 2e-7.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean, var = _statistics(x, weight.dtype)
        y = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.mark_non_differentiable(mean, var)
        ctx.eps = eps
        return y, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:  # type: ignore[override]
        x, weight, mean, invstd = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:3])
        grads = torch.ops.aten.native_batch_norm_backward(grad, x, weight, None, None, mean, invstd, True, ctx.eps, wanted)
        gx, gw, gb = (g if w else None for g, w in zip(grads, wanted, strict=True))
        return gx, gw, gb, None


def _statistics(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, (C,) of the given type. x: (N, C, H, W)."""
    columns = 1
    if x.is_contiguous(memory_format=torch.channels_last):
        columns, c = x.shape[3], x.shape[1]
        x = x.permute(0, 2, 3, 1).reshape(len(x) * x.shape[2], columns * c)
    kind = torch.zeros(2, x.shape[1], dtype=dtype)  # the sums take its type
    mean, var = (t.view(columns, -1) for t in torch.batch_norm_update_stats(x, kind[0], kind[1], 0.0))
    return mean.mean(0), var.mean(0) + mean.var(0, correction=0)


class Block(nn.Sequential):
    """Conv 3 x 3, batch norm, ReLU (``relu``)."""

    def __init__(self, channels: int, out: int, *, relu: bool = True, running: bool = False) -> None:
        super().__init__(nn.Conv2d(channels, out, 3, padding=1), BatchNorm(out, relu=relu, running=running))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = cast(nn.Conv2d, self[0]), self[1]
        return norm(F.conv2d(x, conv.weight, padding=1), conv.bias)


class Up(nn.Sequential):
    """Nearest neighbour x 2, conv 3 x 3, batch norm, ReLU.

    Of the nine pixels under the kernel some always have the same value. Their weights are added first, which leaves a
    transposed convolution 4 x 4 with stride 2: the same function with 4/9 of the work.
    """

    def __init__(self, channels: int, out: int, *, running: bool = False) -> None:
        up = nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(channels, out, 3, padding=1))
        super().__init__(up, BatchNorm(out, running=running))

    def forward(self, x: Tensor) -> Tensor:
        conv, norm = cast(nn.Conv2d, self.get_submodule("0.1")), self[1]
        kernel = _spread(_spread(conv.weight, 2), 3).transpose(0, 1)
        return norm(F.conv_transpose2d(x, kernel, stride=2, padding=1), conv.bias)


def _spread(weight: Tensor, dim: int) -> Tensor:
    """Along one axis of the kernel: (w0, w1, w2) -> (w2, w1 + w2, w0 + w1, w0)."""
    w0, w1, w2 = weight.unbind(dim)
    return torch.stack((w2, w1 + w2, w0 + w1, w0), dim)


class Generator(nn.Module):
    """U-Net with a branch per class and no skip connection at full resolution.

    Args:
        channels: image channels.
        width: channels of the first layer (published: 64), doubled by every further one.
        running: at inference use the running statistics instead of each image's own.
    """

    def __init__(self, channels: int, *, width: int = 64, running: bool = False) -> None:
        super().__init__()
        w = width

        def block(a: int, b: int, *, relu: bool = True) -> Block:
            return Block(a, b, relu=relu, running=running)

        self.down0 = nn.Sequential(block(channels + 2, w), block(w, w))
        self.down1 = nn.Sequential(nn.MaxPool2d(2), block(w, 2 * w), block(2 * w, 2 * w))
        self.down2 = nn.Sequential(nn.MaxPool2d(2), block(2 * w, 4 * w), block(4 * w, 4 * w))
        self.down3 = nn.Sequential(nn.MaxPool2d(2), block(4 * w, 8 * w), block(8 * w, 8 * w))
        self.up3 = Up(8 * w, 4 * w, running=running)
        self.conv5 = nn.Sequential(block(8 * w, 4 * w), block(4 * w, 4 * w))
        self.up2 = Up(4 * w, 2 * w, running=running)
        self.conv6 = nn.Sequential(block(4 * w, 2 * w), block(2 * w, 2 * w))
        self.up1 = Up(2 * w, w, running=running)
        self.conv7_k = nn.Sequential(block(w, w), block(w, channels, relu=False))
        self.conv7_g = nn.Sequential(block(w, w), block(w, channels, relu=False))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # authors' code
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(_bias(module))

    def forward(self, x: Tensor, c: int) -> Tensor:
        """x: (N, channels, H, W), H and W multiples of 8; c: the class of all outputs -> the same shape, in [-1, 1]."""
        planes = x.new_zeros(len(x), 2, *x.shape[2:])
        planes[:, c] = 1
        d1 = self.down1(self.down0(torch.cat([x, planes], dim=1)))  # (N, 2w, H/2, W/2)
        d2 = self.down2(d1)  # (N, 4w, H/4, W/4)
        u3 = self.up3(self.down3(d2))
        u2 = self.up2(self.conv5(torch.cat([u3, d2], dim=1)))
        u1 = self.up1(self.conv6(torch.cat([u2, d1], dim=1)))  # (N, w, H, W)
        y = self.get_submodule(f"conv7_{BRANCHES[c]}")(u1)
        return torch.tanh(y.to(x.dtype))


class Discriminator(nn.Module):
    """A trunk without norm under three heads: a critic per class, and a classifier.

    Args:
        channels: image channels.
        size: (H, W) of the images; the classifier's first linear layer sees H/64 x W/64 places (at least one).
        width: channels of the first layer (published: 32).
        dropout: of the classifier, in training (published: 0.1).
    """

    def __init__(self, channels: int, size: tuple[int, int], *, width: int = 32, dropout: float = 0.1) -> None:
        super().__init__()
        w = width
        self.encoder = nn.Sequential(
            _conv(channels, w, relu=False), _pool(),
            _conv(w, 2 * w, relu=False), _pool(),
            _conv(2 * w, 4 * w), _conv(4 * w, 4 * w, relu=False), _pool(),
            _conv(4 * w, 8 * w), _conv(8 * w, 8 * w, relu=False), _pool(),
            _conv(8 * w, 8 * w), _conv(8 * w, 8 * w, relu=False), _pool(),
            _conv(8 * w, 16 * w),
        )  # fmt: skip
        self.conv_k, self.conv_g = (
            # The last convolution is 1 x 1 and padded all the same: the map's border holds nothing but its bias.
            nn.Sequential(_conv(16 * w, 16 * w), _conv(16 * w, 16 * w), nn.Sequential(nn.Conv2d(16 * w, 1, 1, padding=1)))
            for _ in BRANCHES
        )
        deep = [side // _DEEPEST_D for side in size]
        pool = [min(2, side) for side in deep]  # images below 64 pixels leave nothing to halve
        places = (deep[0] // pool[0]) * (deep[1] // pool[1])
        self.conv2 = nn.Sequential(_conv(16 * w, 16 * w), _conv(16 * w, 16 * w), nn.MaxPool2d((pool[0], pool[1])))
        self.linearclass = nn.Sequential(
            nn.Flatten(), nn.Linear(16 * w * places, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 2)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # authors' code
                nn.init.xavier_normal_(module.weight)
                nn.init.zeros_(_bias(module))

    def features(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 16 * width, H/32, W/32)."""
        return self.encoder(x)

    def critic(self, h: Tensor, c: int) -> Tensor:
        """Map of class c's critic from the features: (N, 1, H/32 + 2, W/32 + 2), unbounded."""
        return self.get_submodule(f"conv_{BRANCHES[c]}")(h)

    def logits(self, h: Tensor) -> Tensor:
        """Class logits (N, 2) from the features."""
        return self.linearclass(self.conv2(h))

    def forward(self, x: Tensor, c: int) -> tuple[Tensor, Tensor]:
        """Map of class c's critic and class logits."""
        h = self.features(x)
        return self.critic(h, c), self.logits(h)


class ReLU(nn.Module):
    """ReLU, whose second derivative is no tensor of zeros but nothing at all (see ``networks.stargan.LeakyReLU``)."""

    def forward(self, x: Tensor) -> Tensor:
        return _Relu.apply(x) if not torch.compiler.is_compiling() else F.relu(x)


class MaxPool(nn.Module):
    """Max pooling 2 x 2, without the zeros as well."""

    def forward(self, x: Tensor) -> Tensor:
        return _Pool.apply(x) if not torch.compiler.is_compiling() else F.max_pool2d(x, 2)


class _Relu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.relu(x)
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Tensor | None:  # type: ignore[override]
        return None if grad is None else _Gate.apply(grad, ctx.saved_tensors[0].detach())


class _Gate(torch.autograd.Function):
    """grad where y > 0: linear in grad, so its own derivative is itself."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        return torch.ops.aten.threshold_backward(grad, y, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:  # type: ignore[override]
        return None if grad is None else _Gate.apply(grad, ctx.saved_tensors[0]), None


class _Pool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, places = torch.ops.aten.max_pool2d_with_indices(x, 2)
        ctx.save_for_backward(x, places)
        ctx.mark_non_differentiable(places)
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Tensor | None:  # type: ignore[override]
        x, places = ctx.saved_tensors
        return None if grad is None else _Unpool.apply(grad, x.detach(), places)


class _Unpool(torch.autograd.Function):
    """Puts each gradient at the place of its maximum; the derivative takes it from there again."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.set_materialize_grads(False)
        return torch.ops.aten.max_pool2d_with_indices_backward(grad, x, 2, 2, 0, 1, False, places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None, None]:  # type: ignore[override]
        (places,) = ctx.saved_tensors
        if grad is None:
            return None, None, None
        return grad.flatten(2).gather(2, places.flatten(2)).view_as(places), None, None


def check_sizes(height: int, width: int) -> None:
    """Raises ConfigError unless generator (multiples of 8) and discriminator (at least 32) can take the size."""
    for name, side in (("height", height), ("width", width)):
        if side % _DEEPEST_G or side < _DEEPEST_D:
            near = max(_DEEPEST_D, round(side / _DEEPEST_G) * _DEEPEST_G)
            why = "the generator halves it three times" if side % _DEEPEST_G else "the discriminator halves it five times"
            raise ConfigError(
                f"image {name} is {side}, but {why}",
                hint=f"use {near} pixels or another multiple of 8 from 32 on; published: 256",
            )


def _conv(channels: int, out: int, *, relu: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(channels, out, 3, padding=1)
    return nn.Sequential(conv, ReLU()) if relu else nn.Sequential(conv)


def _pool() -> nn.Sequential:
    """The ReLU of the convolution before it comes after the maximum: the same numbers, on a quarter of the pixels."""
    return nn.Sequential(MaxPool(), ReLU())


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
