"""Generator and critic of CycleGAN (Zhu et al., ICCV 2017): ResNet with reflection padding, and the 70 x 70 PatchGAN.

Parameters stand in the published order and under the published names, so that published weights load. Instance norm without
weights and with the statistics of the image itself, in training and at inference; the biases before it are inert, but they are
in the published weights.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from . import rows, winograd
from .norm import InstanceNorm
from .stargan import Halving
from .start import normal_start


class ReflectedConv(nn.Conv2d):
    """Convolution, stride 1, of the image continued by its mirror image: height and width stay."""

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__(channels, out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        x = reflect(x, self.kernel_size[0] // 2)
        convolve = winograd.conv2d if winograd.pays(x, self.weight) else rows.conv2d
        return convolve(x, self.weight, self.bias)


def reflect(x: Tensor, pad: int) -> Tensor:
    """(N, C, H, W) -> (N, C, H + 2 pad, W + 2 pad), continued by mirroring; the border itself is not repeated."""
    if x.is_cuda and torch.are_deterministic_algorithms_enabled():
        return _reflect_by_parts(x, pad)
    with torch.autocast(x.device.type, enabled=False):  # which would have processors pad in single precision
        return F.pad(x, (pad, pad, pad, pad), mode="reflect")


def _reflect_by_parts(x: Tensor, pad: int) -> Tensor:
    """The same, whose backward pass on a GPU is deterministic, which torch's own is not."""
    for axis in (2, 3):
        before, after = x.narrow(axis, 1, pad), x.narrow(axis, x.shape[axis] - pad - 1, pad)
        x = torch.cat([before.flip(axis), x, after.flip(axis)], dim=axis)
    return x


class ResidualBlock(nn.Module):
    """x + Norm(Conv(ReLU(Norm(Conv(x))))), no activation after the sum."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_block = _named(
            {
                1: ReflectedConv(width, width, 3),
                2: InstanceNorm(width, relu=True, affine=False),
                5: ReflectedConv(width, width, 3),
                6: InstanceNorm(width, affine=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class Generator(nn.Module):
    """Encoder, residual blocks, decoder, tanh.

    Args:
        channels: image channels, in and out.
        width: channels of the first layer (published: 64).
        blocks: residual blocks (published: 6 for 128 px, 9 for 256 px and more).
    """

    def __init__(self, channels: int, *, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        w = width
        layers: dict[int, nn.Module] = {
            1: ReflectedConv(channels, w, 7),
            2: InstanceNorm(w, relu=True, affine=False),
            4: nn.Conv2d(w, 2 * w, 3, stride=2, padding=1),
            5: InstanceNorm(2 * w, relu=True, affine=False),
            7: nn.Conv2d(2 * w, 4 * w, 3, stride=2, padding=1),
            8: InstanceNorm(4 * w, relu=True, affine=False),
        }
        layers |= {10 + i: ResidualBlock(4 * w) for i in range(blocks)}
        end = 10 + blocks
        layers |= {
            end: nn.ConvTranspose2d(4 * w, 2 * w, 3, stride=2, padding=1, output_padding=1),
            end + 1: InstanceNorm(2 * w, relu=True, affine=False),
            end + 3: nn.ConvTranspose2d(2 * w, w, 3, stride=2, padding=1, output_padding=1),
            end + 4: InstanceNorm(w, relu=True, affine=False),
            end + 7: ReflectedConv(w, channels, 7),
            end + 8: nn.Tanh(),
        }
        self.model = _named(layers)
        normal_start(self)  # paper, appendix, and the authors' program

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W), H and W multiples of 4 -> the same in [-1, 1]."""
        return self.model(x)


class Critic(nn.Module):
    """PatchGAN: which of the overlapping patches look real.

    Args:
        channels: image channels.
        width: channels of the first layer (published: 64), doubled by each further one up to eight times.
        layers: halvings (published: 3, so that a patch is 70 x 70 pixels).
    """

    def __init__(self, channels: int, *, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        model: dict[int, nn.Module] = {0: Halving(channels, width), 1: _leaky()}
        given, place = width, 2
        for i in range(1, layers + 1):
            out = width * min(2**i, 8)
            # After the halvings one layer more, with stride 1.
            model[place] = Halving(given, out) if i < layers else nn.Conv2d(given, out, 4, padding=1)
            model[place + 1] = InstanceNorm(out, affine=False)
            model[place + 2] = _leaky()
            given, place = out, place + 3
        model[place] = nn.Conv2d(given, 1, 4, padding=1)
        self.model = _named(model)
        normal_start(self)  # paper, appendix, and the authors' program

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> patch map (N, 1, H / 2**layers - 2, W / 2**layers - 2), unbounded."""
        return self.model(x)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)  # neither convolution nor norm needs its output again


def _named(layers: dict[int, nn.Module]) -> nn.Sequential:
    """Layers under the numbers they bear in the published state dicts."""
    return nn.Sequential(OrderedDict((str(i), layer) for i, layer in layers.items()))


def check_sizes(height: int, width: int, layers: int, network: str = "generator, which halves it twice") -> None:
    """Raises ConfigError unless a network that wants multiples of 4 and a patch critic of so many halvings take the size."""
    if layers < 1:
        raise ConfigError(f"critic_layers must be at least 1, not {layers}", hint="published: 3")
    # The critic's last norm needs two pixels a side (statistics over one are none): a third one before the layer of stride 1.
    least = max(8, 3 << layers)
    for name, side in (("height", height), ("width", width)):
        if side % 4:
            raise ConfigError(
                f"image {name} {side} does not fit the {network}",
                hint=f"use a multiple of 4, for example {max(least, round(side / 4) * 4)}",
            )
        if side < least:
            fits = [n for n in range(1, layers) if side >= max(8, 3 << n)]
            fewer = f", or critic_layers={fits[-1]} for this size" if fits else ""
            raise ConfigError(
                f"image {name} {side} is too small for a critic that halves it {layers} times",
                hint=f"use at least {least} pixels{fewer}",
            )
