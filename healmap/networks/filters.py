"""A fixed bank of oriented filters: a backbone that needs neither weights nor training (ours).

On each of three levels, images of stride 1, 2 and 4 by averaging squares, lie quadrature pairs of Gabor filters (Granlund 1978;
Daugman 1985), of wavelength λ pixels of that level and orientation θ:

    g_λθ(p) = exp(-|p|² / 2σ²) (exp(2πi u·p / λ) - c),   u = (cos θ, sin θ),  σ = 0.5 λ

c makes the sum zero, so that flat regions give nothing; the pair is scaled so that a grating of amplitude a, wavelength λ and
orientation θ gives modulus a. A feature is the energy |g * I|, where the grating's phase does not matter, averaged to the
stage's grid (strides 4, 8, 16). Beside the energies stand the local mean of the intensity and its local standard deviation.

Scaling: images of nature and of bodies have power spectra near 1/f² (Field, JOSA A 1987), to which filters of constant
bandwidth in octaves answer alike on all levels. So one constant serves all energies, and likewise the other two: GAINS brings
each to about unit variance.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ORIENTATIONS = 8
WAVELENGTHS = (4.0, 4.0 * math.sqrt(2))  # pixels of a level; the next level goes on with 8
SIGMA = 0.5  # of a wavelength: 1.2 octaves at half height
GAINS = (10.0, 2.0, 5.0)  # of energies, mean, standard deviation; on brain slices they then deviate by 0.3 to 1.3


class FilterBank(nn.Module):
    """(N, channels, H, W) in [-1, 1], H and W multiples of 16 -> features of strides 4, 8, 16.

    The maps of a stage hold, for every image channel by itself, the energies (wavelength by wavelength, orientation by
    orientation), the mean and the standard deviation. Computed in single precision at least, whatever autocast says.
    """

    strides = (4, 8, 16)
    even: Tensor
    odd: Tensor

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.channels = (channels * (len(WAVELENGTHS) * ORIENTATIONS + 2),) * 3
        even, odd = gabor_pairs()
        self.register_buffer("even", even, persistent=False)
        self.register_buffer("odd", odd, persistent=False)

    def stages(self, x: Tensor, last: int = 3) -> tuple[Tensor, ...]:
        with torch.autocast(x.device.type, enabled=False):
            n, c = x.shape[:2]
            level = x.to(self.even.dtype).flatten(0, 1).unsqueeze(1)  # (N C, 1, H, W)
            maps = []
            for k in range(last):
                if k:
                    level = F.avg_pool2d(level, 2)
                features = self.features(level)
                maps.append(features.unflatten(0, (n, c)).flatten(1, 2))
            return tuple(maps)

    def features(self, level: Tensor) -> Tensor:
        """(N, 1, H, W) -> (N, energies + 2, H/4, W/4)."""
        p = self.even.shape[-1] // 2 - 1  # filters sit between the pixels, so that a stage's grid is centred on the image
        padded = F.pad(level, (p, p, p, p), mode="replicate")
        energy = (F.conv2d(padded, self.even, stride=2) ** 2 + F.conv2d(padded, self.odd, stride=2) ** 2 + 1e-12).sqrt()
        mean = F.avg_pool2d(level, 4)
        spread = (F.avg_pool2d(level**2, 4) - mean**2).clamp_min(0).sqrt()
        return torch.cat((GAINS[0] * F.avg_pool2d(energy, 2), GAINS[1] * mean, GAINS[2] * spread), dim=1)


def gabor_pairs() -> tuple[Tensor, Tensor]:
    """Real and imaginary parts of every filter, (wavelengths * orientations, 1, K, K) each, K even, in the features' order."""
    radius = math.ceil(3 * SIGMA * max(WAVELENGTHS))
    p = torch.arange(-radius, radius, dtype=torch.float64) + 0.5
    y, x = p[:, None], p[None, :]
    even, odd = [], []
    for wavelength in WAVELENGTHS:
        window = torch.exp(-(x**2 + y**2) / (2 * (SIGMA * wavelength) ** 2))
        for i in range(ORIENTATIONS):
            theta = math.pi * i / ORIENTATIONS
            phase = 2 * math.pi / wavelength * (x * math.cos(theta) + y * math.sin(theta))
            c = (window * phase.cos()).sum() / window.sum()
            real, imaginary = window * (phase.cos() - c), window * phase.sin()
            gain = 2 / ((real * phase.cos()).sum() + (imaginary * phase.sin()).sum())
            even.append(gain * real)
            odd.append(gain * imaginary)
    return torch.stack(even).unsqueeze(1).float(), torch.stack(odd).unsqueeze(1).float()
