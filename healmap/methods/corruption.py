"""Made-up lesions: what Restoration learns to undo.

Everything here is drawn from torch's own generator on the image's device (so that a resumed run repeats it), for the whole
batch at once, and nothing outside ``inside`` or outside the drawn share of images changes by a single bit.

Lengths are in half sides (1 = half the shorter side of the image), amplitudes in the [0, 1] range of intensities,
images in [-1, 1]. N images, C channels, H rows, W columns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..networks.warping import pixel_grid, warp

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Lesions that change intensities. Sources: ours throughout; the ranges are the prototype's unless a reason is given."""

    kinds: tuple[float, float, float, float] = (0.7, 0.1, 0.1, 0.1)  # odds of: blob, coarse noise, cut-paste, flat patch
    second: float = 0.5  # probability of a second one in the same image
    half_axis: Range = (0.05, 0.35)  # of the ellipse, in half sides
    amplitude: Range = (0.15, 0.6)  # change of intensity, of the [0, 1] range
    bright: float = 0.7  # share that brightens; the others darken
    soft: Range = (0.05, 0.4)  # width of the edge, as a share of the radius
    irregular: float = 0.35  # how far coarse noise moves the edge, as a share of the radius (standard deviation)
    texture: float = 0.35  # standard deviation of the texture, as a share of the amplitude

    def __post_init__(self) -> None:
        _increasing("lesions", half_axis=self.half_axis, amplitude=self.amplitude, soft=self.soft)
        if len(self.kinds) != 4 or min(self.kinds) < 0 or sum(self.kinds) <= 0:
            raise ConfigError(f"lesions.kinds {self.kinds} are no odds", hint="give four numbers >= 0, like 0.7,0.1,0.1,0.1")


@dataclass(frozen=True, kw_only=True)
class Bumps:
    """Local radial deformations. Sources: ours; sigma and peak are the prototype's."""

    second: float = 0.5  # probability of a second one in the same image
    sigma: Range = (0.1, 0.3)  # width, in half sides; the displacement is largest at this distance from the centre
    peak: Range = (0.03, 0.14)  # largest displacement, in half sides
    inwards: float = 0.5  # share that moves content towards the centre

    def __post_init__(self) -> None:
        _increasing("bumps", sigma=self.sigma, peak=self.peak)


def _increasing(group: str, **ranges: Range) -> None:
    for name, (low, high) in ranges.items():
        if not 0 < low <= high:
            raise ConfigError(f"{group}.{name} ({low}, {high}) is no range", hint="give two numbers, 0 < lowest <= highest")


def foreground(image: Tensor, threshold: float = 0.06, smooth: int = 5) -> Tensor:
    """Where the body is: (N, C, H, W) in [-1, 1] -> (N, 1, H, W) bool, each image by itself.

    A pixel belongs to it when brighter pixels (above ``threshold`` of the [0, 1] range after smoothing, which drops specks)
    lie on its left, right, above and below, itself included: holes such as ventricles are filled, at the cost of slightly
    filled-in concavities. Where the rim of the image is not dark there is no background to tell, and all is foreground.
    """
    v = (image.float().amax(1, keepdim=True) + 1) / 2
    above = (F.avg_pool2d(v, smooth, 1, smooth // 2, count_include_pad=False) > threshold).int()
    filled = torch.ones_like(above, dtype=torch.bool)
    for axis in (2, 3):
        before = above.cumsum(axis)
        after = before.select(axis, -1).unsqueeze(axis) - before + above
        filled &= (before > 0) & (after > 0)
    rim = torch.cat((above[..., 0, :], above[..., -1, :], above[..., 0], above[..., -1]), dim=-1)  # (N, 1, 2H + 2W)
    return filled | (rim.float().mean(-1) > 0.8)[..., None, None]


def uniform(n: int, low: float, high: float, like: Tensor) -> Tensor:
    """(n, 1, 1, 1) numbers in [low, high)."""
    return torch.rand(n, 1, 1, 1, device=like.device) * (high - low) + low


def coarse_noise(n: int, cells: int, size: tuple[int, int], like: Tensor) -> Tensor:
    """Smooth noise (n, 1, H, W) of about unit variance: ``cells`` independent normal numbers along each side, interpolated."""
    noise = torch.randn(n, 1, cells + 1, cells + 1, device=like.device)
    # Between grid points bilinear interpolation averages: over a cell the variance is (2/3)² of that at the points.
    return F.interpolate(noise, size, mode="bilinear", align_corners=True) * 1.5


def centres(inside: Tensor) -> tuple[Tensor, Tensor]:
    """One random foreground pixel of each image: column and row, (N, 1, 1, 1) float32. inside: (N, 1, H, W) bool."""
    flat = inside.flatten(1)
    index = (torch.rand(flat.shape, device=flat.device) * flat).argmax(1)
    width = inside.shape[3]
    return (index % width).float().view(-1, 1, 1, 1), (index // width).float().view(-1, 1, 1, 1)


def _offsets(inside: Tensor) -> tuple[Tensor, Tensor]:
    """Distance of every pixel from a random centre inside, along x and y, in half sides: each (N, 1, H, W) by broadcast."""
    height, width = inside.shape[2:]
    x, y = pixel_grid(height, width, inside)
    cx, cy = centres(inside)
    half = min(height, width) / 2
    return (x - cx) / half, (y - cy) / half


def blob_mask(inside: Tensor, config: Lesions) -> Tensor:
    """A soft, irregular ellipse per image: (N, 1, H, W) bool -> (N, 1, H, W) float in [0, 1), zero outside ``inside``."""
    n, _, height, width = inside.shape
    dx, dy = _offsets(inside)
    angle = uniform(n, 0, math.pi, inside)
    a, b = uniform(n, *config.half_axis, inside), uniform(n, *config.half_axis, inside)
    u, v = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    rho = ((u / a) ** 2 + (v / b) ** 2).sqrt()  # 1 on the ellipse
    noise = coarse_noise(n, 8, (height, width), inside) + coarse_noise(n, 20, (height, width), inside)
    edge = (1 + config.irregular * math.sqrt(0.5) * noise - rho) / uniform(n, *config.soft, inside)
    return torch.sigmoid(4 * edge) * inside


def add_lesions(x: Tensor, inside: Tensor, config: Lesions, share: float | Tensor = 1.0) -> Tensor:
    """One or two made-up lesions in a random ``share`` of the images.

    x: (N, C, H, W) in [-1, 1]. inside: (N, 1, H, W) bool. share: a probability, or which images, (N, 1, 1, 1) bool.
    Returns (N, C, H, W) in [-1, 1].
    """
    n = len(x)
    chosen = uniform(n, 0, 1, x) < share if isinstance(share, float) else share
    second = chosen & (uniform(n, 0, 1, x) < config.second)
    return _add_lesion(_add_lesion(x, inside, config, chosen), inside, config, second)


def _add_lesion(x: Tensor, inside: Tensor, config: Lesions, chosen: Tensor) -> Tensor:
    n, _, height, width = x.shape
    size = (height, width)
    mask = blob_mask(inside, config) * chosen
    sign = torch.where(uniform(n, 0, 1, x) < config.bright, 2.0, -2.0)  # 2: amplitudes are of [0, 1], x of [-1, 1]
    amplitude = uniform(n, *config.amplitude, x)
    texture = coarse_noise(n, max(height, width) // 4, size, x)
    draw = uniform(n, 0, sum(config.kinds), x)
    kind = torch.stack([draw >= bound for bound in list(accumulate(config.kinds))[:-1]]).sum(0)  # (N, 1, 1, 1) in 0..3

    blob = sign * amplitude * (1 + config.texture * texture)
    noise = 2 * amplitude * coarse_noise(n, max(height, width) // 8, size, x)
    level = (x * mask).sum((2, 3), keepdim=True) / mask.sum((2, 3), keepdim=True).clamp_min(1e-6)
    flat = level + sign * amplitude - x
    donor, there = _elsewhere(x, inside)
    paste = (donor - x) * there
    change = torch.where(kind == 0, blob, torch.where(kind == 1, noise, torch.where(kind == 2, paste, flat)))
    return torch.where(mask > 0, (x + mask * change).clamp(-1, 1), x)


def _elsewhere(x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Another image of the batch, or the same mirrored, moved by a random number of pixels that wraps around."""
    n, c, height, width = x.shape
    rows = torch.arange(height, device=x.device) + torch.randint(height, (n, 1), device=x.device)  # (N, H)
    columns = torch.arange(width, device=x.device) + torch.randint(width, (n, 1), device=x.device)  # (N, W)
    index = (rows % height * width)[:, :, None] + (columns % width)[:, None, :]  # (N, H, W)
    index = index.view(n, 1, -1)
    other = x.roll(1, 0).flip(3) if n == 1 else x.roll(1, 0)
    mask = inside.roll(1, 0).flip(3) if n == 1 else inside.roll(1, 0)
    donor = other.flatten(2).gather(2, index.expand(-1, c, -1)).view_as(x)
    return donor, mask.flatten(2).gather(2, index).view_as(inside)


def bump_field(inside: Tensor, config: Bumps) -> Tensor:
    """One radial bump per image, as a displacement (N, 2, H, W) in half sides.

    With ρ the distance from a random centre: |d| = peak (ρ/σ) exp(1/2 - ρ²/2σ²), pointing away from the centre (the content
    moves inwards, since ``warp`` fetches from p + d) or towards it. The gradient of a Gaussian, as in DeScarGAN's ellipses.
    """
    n = len(inside)
    dx, dy = _offsets(inside)
    sigma, peak = uniform(n, *config.sigma, inside), uniform(n, *config.peak, inside)
    inwards = uniform(n, 0, 1, inside) < config.inwards
    # A steeper field folds: it fetches some content twice or never, and what is gone cannot be restored. The smallest
    # radial slope of p + d is 1 - 0.74 peak/σ when pointing away and 1 - 1.65 peak/σ when pointing to the centre.
    peak = torch.where(inwards, torch.minimum(peak, sigma), -torch.minimum(peak, 0.5 * sigma))
    strength = peak / sigma * torch.exp(0.5 - (dx**2 + dy**2) / (2 * sigma**2))
    return torch.cat((dx * strength, dy * strength), dim=1)


def deform(x: Tensor, inside: Tensor, config: Bumps, share: float | Tensor = 1.0) -> Tensor:
    """One or two radial bumps in a random ``share`` of the images. Shapes as in :func:`add_lesions`."""
    n, _, height, width = x.shape
    chosen = uniform(n, 0, 1, x) < share if isinstance(share, float) else share
    second = chosen & (uniform(n, 0, 1, x) < config.second)
    field = bump_field(inside, config) * chosen + bump_field(inside, config) * second
    return warp(x, field * (min(height, width) / 2)).clamp(-1, 1)
