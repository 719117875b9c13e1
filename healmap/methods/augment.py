"""Random changes of training images that leave their label as it is.

Drawn from torch's generator on the images' device, so that a resumed run repeats them. Sources: ours throughout; small, since a
lesion may be small and faint itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from .corruption import uniform


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far each change goes, either way; 0 turns it off. Mirroring left to right is ``data.flip``."""

    rotate: float = 10.0  # degrees
    zoom: float = 0.1  # factor on lengths: 1 - zoom to 1 + zoom
    shift: float = 0.05  # of the side
    brightness: float = 0.1  # factor on intensities above black: 1 - brightness to 1 + brightness
    gamma: float = 0.1  # exponent of intensities in [0, 1]: 1 - gamma to 1 + gamma
    flip_vertical: bool = False  # with probability 1/2; for images that have no upright position

    def __post_init__(self) -> None:
        if not 0 <= self.rotate <= 180:
            raise ConfigError(f"augment.rotate {self.rotate} is no angle", hint="give degrees from 0 to 180, for example 10")
        for name in ("zoom", "shift", "brightness", "gamma"):
            if not 0 <= getattr(self, name) < 1:
                hint = "use for example 0.1, or 0 for none"
                raise ConfigError(f"augment.{name} {getattr(self, name)} does not lie in [0, 1)", hint=hint)


@torch.no_grad()
def augment(x: Tensor, a: Augmentation) -> Tensor:
    """x: (N, C, H, W) in [-1, 1] -> the same, each image changed by numbers of its own; float32, or x itself where all is off.

    Beyond the border of the image its border goes on; black stays black.
    """
    if a.flip_vertical:
        x = torch.where(uniform(len(x), 0, 1, x) < 0.5, x.flip(2), x)
    if a.brightness or a.gamma:
        gain, gamma = (uniform(len(x), 1 - s, 1 + s, x) for s in (a.brightness, a.gamma))
        v = ((x.float() + 1) / 2).clamp(min=0)  # an image may be below -1 by rounding; a power of that is no number
        x = (gain * v**gamma).clamp(max=1) * 2 - 1
    if a.rotate or a.zoom or a.shift:
        x = _moved(x.float(), a)
    return x


def _moved(x: Tensor, a: Augmentation) -> Tensor:
    n, _, height, width = x.shape
    angle = uniform(n, -a.rotate, a.rotate, x)[:, 0, 0] * (math.pi / 180)  # (N, 1)
    factor = 1 / uniform(n, 1 - a.zoom, 1 + a.zoom, x)[:, 0, 0]  # places are fetched: twice as large means half as far
    across, down = (2 * uniform(n, -a.shift, a.shift, x)[:, 0, 0] for _ in range(2))  # the side is 2 in grid coordinates
    cos, sin = factor * angle.cos(), factor * angle.sin()
    stretch = height / width  # grid coordinates go from -1 to 1 along either side
    theta = torch.stack([torch.cat([cos, -sin * stretch, across], 1), torch.cat([sin / stretch, cos, down], 1)], 1)
    with torch.autocast(x.device.type, enabled=False):  # places in half precision are off by a pixel
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="border", align_corners=False).clamp(-1, 1)
