"""Generator and critic of the StarGAN family (Choi et al., CVPR 2018), which Fixed-Point GAN and HealthyGAN reuse.

Parameters stand in the published order and under the published names, so that published weights load; the norm layers' stored
running statistics are ignored. Zero padding everywhere: label planes are a constant shift, which instance norm would remove
but for the border.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .norm import InstanceNorm


class ResidualBlock(nn.Module):
    """x + Norm(Conv(ReLU(Norm(Conv(x))))), no activation after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = _named(
            {
                0: nn.Conv2d(width, width, 3, padding=1, bias=False),
                1: InstanceNorm(width, relu=True),
                3: nn.Conv2d(width, width, 3, padding=1, bias=False),
                4: InstanceNorm(width),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.main(x)


class Generator(nn.Module):
    """Encoder, residual blocks, decoder; no activation at the end: the method decides what the output means.

    Args:
        channels: image channels.
        planes: label planes put beside the image channels (0: none).
        out: output channels.
        width: channels of the first layer (published: 64).
        blocks: residual blocks (published: 6).
    """

    def __init__(self, channels: int, planes: int, out: int, *, width: int = 64, blocks: int = 6) -> None:
        super().__init__()
        w = width
        layers: dict[int, nn.Module] = {
            0: nn.Conv2d(channels + planes, w, 7, padding=3, bias=False),
            1: InstanceNorm(w, relu=True),
            3: nn.Conv2d(w, 2 * w, 4, stride=2, padding=1, bias=False),
            4: InstanceNorm(2 * w, relu=True),
            6: nn.Conv2d(2 * w, 4 * w, 4, stride=2, padding=1, bias=False),
            7: InstanceNorm(4 * w, relu=True),
        }
        layers |= {9 + i: ResidualBlock(4 * w) for i in range(blocks)}
        end = 9 + blocks
        layers |= {
            end: nn.ConvTranspose2d(4 * w, 2 * w, 4, stride=2, padding=1, bias=False),
            end + 1: InstanceNorm(2 * w, relu=True),
            end + 3: nn.ConvTranspose2d(2 * w, w, 4, stride=2, padding=1, bias=False),
            end + 4: InstanceNorm(w, relu=True),
            end + 6: nn.Conv2d(w, out, 7, padding=3, bias=False),
        }
        self.main = _named(layers)

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """x: (N, channels, H, W), H and W multiples of 4; c: (N, planes) -> (N, out, H, W), unbounded."""
        if c is not None:
            x = torch.cat([x, c.to(x.dtype)[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)
        return self.main(x)


class Critic(nn.Module):
    """Stride-2 trunk without norm, a patch head (source) and, for ``classes`` > 0, a class head that sees the whole image.

    Args:
        channels: image channels.
        classes: logits of the class head (0: no such head).
        size: (H, W); the class head's kernel is size / 2**layers.
        width: channels of the first layer (published: 64), doubled by every further one.
        layers: halvings (published: 6).
    """

    def __init__(self, channels: int, classes: int, size: tuple[int, int], *, width: int = 64, layers: int = 6) -> None:
        super().__init__()
        trunk: dict[int, nn.Module] = {}
        for i in range(layers):
            trunk[2 * i] = Halving(channels if i == 0 else width << (i - 1), width << i)
            trunk[2 * i + 1] = LeakyReLU()
        self.main = _named(trunk)
        deep = width << (layers - 1)
        self.conv1 = nn.Conv2d(deep, 1, 3, padding=1, bias=False)
        kernel = (size[0] >> layers, size[1] >> layers)
        self.conv2 = nn.Conv2d(deep, classes, kernel, bias=False) if classes else None

    def features(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, width * 2**(layers - 1), H / 2**layers, W / 2**layers)."""
        return self.main(x)

    def source(self, x: Tensor) -> Tensor:
        """The patch map alone: (N, 1, H / 2**layers, W / 2**layers), unbounded."""
        return self.conv1(self.features(x))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Patch map (N, 1, h, w) and class logits (N, classes)."""
        h = self.features(x)
        if self.conv2 is None:
            return self.conv1(h), h.new_zeros(len(h), 0)
        # The class head's kernel covers the whole map: a matrix product, and much faster as one.
        return self.conv1(h), F.linear(h.flatten(1), self.conv2.weight.flatten(1))


class Halving(nn.Conv2d):
    """Convolution 4 x 4 with stride 2: half the height and width.

    Deep in the critic there are more weights than pixels. Processor libraries then spend most of their time rearranging the
    weights; as a matrix product of the few patches with the weights as they lie in memory it is several times faster.
    """

    def __init__(self, channels: int, out: int) -> None:
        super().__init__(channels, out, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        n, height, width = len(x), x.shape[2] // 2, x.shape[3] // 2
        if x.device.type != "cpu" or n * height * width > self.out_channels or torch.compiler.is_compiling():
            return super().forward(x)
        patches = F.pad(x, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)  # (N, C, H/2, W/2, 4, 4)
        if self.weight.is_contiguous(memory_format=torch.channels_last):  # in the weights' own order
            rows, weight = patches.permute(0, 2, 3, 4, 5, 1), self.weight.permute(0, 2, 3, 1)
        else:
            rows, weight = patches.permute(0, 2, 3, 1, 4, 5), self.weight
        y = F.linear(rows.reshape(n * height * width, -1), weight.reshape(self.out_channels, -1), self.bias)
        return y.view(n, height, width, -1).permute(0, 3, 1, 2)


class LeakyReLU(nn.Module):
    """Leaky ReLU, slope 0.01, whose derivative is a constant of its sign.

    Its second derivative is zero wherever it exists. Autograd's own leaky ReLU nevertheless hands a tensor of zeros down the
    whole critic when a gradient penalty is differentiated, a third of the penalty's cost; this one hands down nothing.
    """

    def forward(self, x: Tensor) -> Tensor:
        return _Leaky.apply(x) if not torch.compiler.is_compiling() else F.leaky_relu(x, _SLOPE)


_SLOPE = 0.01


class _Leaky(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = F.leaky_relu(x, _SLOPE)
        ctx.save_for_backward(y)  # same sign as x, and kept anyway by the next convolution
        ctx.set_materialize_grads(False)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Tensor | None:  # type: ignore[override]
        if grad is None:
            return None
        (y,) = ctx.saved_tensors
        return _LeakySlope.apply(grad, y.detach())  # detached: the slope does not lead back into the forward pass


class _LeakySlope(torch.autograd.Function):
    """grad times the slope at y: linear in grad, so its own derivative is itself."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(y)
        ctx.set_materialize_grads(False)
        return torch.ops.aten.leaky_relu_backward(grad, y, _SLOPE, True)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:  # type: ignore[override]
        return None if grad is None else _LeakySlope.apply(grad, ctx.saved_tensors[0]), None


def check_sizes(height: int, width: int, layers: int, *, whole: bool = True) -> None:
    """Raises ConfigError unless generator (multiples of 4) and critic can take the size.

    whole: the critic has a class head, whose kernel height / 2**layers must be a whole number.
    """
    for name, side in (("height", height), ("width", width)):
        if side % 4 or side < 8:
            raise ConfigError(
                f"image {name} {side} does not fit the generator, which halves it twice",
                hint=f"use a multiple of 4, for example {max(8, round(side / 4) * 4)}",
            )
        if layers < 1:
            raise ConfigError(f"critic_layers must be at least 1, not {layers}", hint="published: 6")
        if side < 1 << layers or (whole and side % (1 << layers)):
            fits = [n for n in range(1, layers) if side % (1 << n) == 0]
            step = 1 << layers
            near = max(step, round(side / step) * step)
            fewer = f", or critic_layers={fits[-1]} for this size" if fits else ""
            raise ConfigError(
                f"image {name} is {side}, but the critic halves it {layers} times",
                hint=f"use {near} pixels or another multiple of {step}{fewer}",
            )


def _named(layers: dict[int, nn.Module]) -> nn.Sequential:
    """Layers under the numbers they bear in the published state dicts."""
    return nn.Sequential(OrderedDict((str(i), layer) for i, layer in layers.items()))
