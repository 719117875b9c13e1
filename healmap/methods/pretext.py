"""What an encoder can learn from healthy images alone, so that its features mean something: two tasks without labels.

Symbols: x clean image, x' = corrupt(x) image with a made-up lesion, g encoder of three stages, h head of the task.

    restoration:  | x' + h(g(x')) - x |, mean over pixels: undo the lesion (methods/corruption.py)
    rotation:     cross-entropy of h(mean g_3(rot_r x)) with r, r of 0, 90, 180, 270 degrees, all four of each image
                  (Gidaris, Singh, Komodakis, ICLR 2018, eqs. 2 and 3)

The heads serve training only.
"""

from __future__ import annotations

from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..losses.precision import at_least_float32
from .base import Losses
from .corruption import Lesions, add_lesions, foreground

Task = Literal["restoration", "rotation"]

CORRUPTED = 0.7  # share of the images, and
BETA = 0.1  # below this the loss is quadratic: both as in Restoration
WARM_UP = 50  # steps until the learning rate is full: likewise


class Encoder(Protocol):
    channels: tuple[int, ...]

    def stages(self, x: Tensor, last: int | None = None) -> tuple[Tensor, ...]: ...


class Restoration(nn.Module):
    """Head h: the three maps, each by a 1 x 1 convolution, are enlarged and added from the coarsest to the finest, as in a
    feature pyramid (Lin et al., CVPR 2017); a last convolution, zero at first, gives the residual in squares of 4 x 4 pixels.
    """

    def __init__(self, channels_in: int, maps: tuple[int, ...]) -> None:
        super().__init__()
        width = maps[0] * 2
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in maps)
        self.last = nn.Conv2d(width, channels_in * 16, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        self.lesions = Lesions()

    def residual(self, maps: tuple[Tensor, ...]) -> Tensor:
        """Maps of strides 4, 8, 16 -> (N, C, H, W)."""
        y = self.lateral[-1](maps[-1])
        for lateral, finer in zip(self.lateral[-2::-1], maps[-2::-1], strict=True):  # type: ignore[arg-type]
            y = F.interpolate(y, finer.shape[2:], mode="nearest") + lateral(finer)
        return F.pixel_shuffle(self.last(F.relu(y)), 4)

    def losses(self, encoder: Encoder, x: Tensor) -> Losses:
        """x: (N, C, H, W) in [-1, 1], healthy."""
        x = at_least_float32(x)
        with torch.no_grad():
            corrupted = add_lesions(x, foreground(x), self.lesions, CORRUPTED)
        residual = self.residual(encoder.stages(corrupted))
        return Losses(restoration=F.smooth_l1_loss(corrupted + at_least_float32(residual), x, beta=BETA))


class Rotation(nn.Module):
    """Head h: linear, of the mean over positions of the last map."""

    def __init__(self, maps: tuple[int, ...]) -> None:
        super().__init__()
        self.linear = nn.Linear(maps[-1], 4)

    def losses(self, encoder: Encoder, x: Tensor) -> Losses:
        """x: (N, C, H, W) in [-1, 1], healthy; the middle square of it is turned."""
        top, left = max(x.shape[2] - x.shape[3], 0) // 2, max(x.shape[3] - x.shape[2], 0) // 2
        side = min(x.shape[2:])
        square = x[..., top : top + side, left : left + side]
        turned = torch.cat([square.rot90(r, (2, 3)) for r in range(4)])
        logits = at_least_float32(self.linear(encoder.stages(turned)[-1].mean((2, 3))))
        truth = torch.arange(4, device=x.device).repeat_interleave(len(x))
        return Losses(rotation=F.cross_entropy(logits, truth))


def head(task: Task, channels_in: int, maps: tuple[int, ...]) -> Restoration | Rotation:
    return Restoration(channels_in, maps) if task == "restoration" else Rotation(maps)


def lr_scale(k: int, total: int) -> float:
    """Rises over the warm-up, then falls in a straight line to zero at the last step."""
    warm_up = min(WARM_UP, total // 4)
    return min((k + 1) / (warm_up + 1), (total - k) / max(total - warm_up, 1))
