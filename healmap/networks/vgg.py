"""VGG-16 (Simonyan & Zisserman, ICLR 2015) up to relu4_2, a yardstick of what two images show. Its weights come from a file."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

# Convolutions by their number in the published state dict -> (channels in, out); ReLUs follow each, pools lie in the gaps.
CONVOLUTIONS = {
    0: (3, 64), 2: (64, 64),
    5: (64, 128), 7: (128, 128),
    10: (128, 256), 12: (256, 256), 14: (256, 256),
    17: (256, 512), 19: (512, 512),
}  # fmt: skip
POOLS = (4, 9, 16)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet in [0, 1], as the public weights expect


class VGG16(nn.Module):
    """(N, 1 or 3, H, W) in [-1, 1], H and W at least 8 -> relu4_2, (N, 512, H/8, W/8). Grey goes to all three channels."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: dict[int, nn.Module] = {n: nn.MaxPool2d(2) for n in POOLS}
        for n, (given, out) in CONVOLUTIONS.items():
            layers |= {n: nn.Conv2d(given, out, 3, padding=1), n + 1: nn.ReLU(inplace=True)}
        self.features = nn.Sequential(OrderedDict((str(n), layers[n]) for n in sorted(layers)))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1)
        return self.features(((x + 1) / 2 - self.mean) / self.deviation)
