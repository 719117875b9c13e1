"""Residual networks (He et al., CVPR 2016; wide: Zagoruyko & Komodakis, BMVC 2016) as most public ImageNet weights know them.

Tensors bear torchvision's names (``conv1``, ``bn1``, ``layer1.0.conv1``, ``layer2.0.downsample.0``, ``fc``) in its order, so a
public file loads as it is. A bottleneck's stride sits on its 3 x 3 convolution, as in those weights; the paper has it first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


class Basic(nn.Module):
    """relu(shortcut(x) + BN(conv3(relu(BN(conv3(x)))))), section 3.3, figure 5 left."""

    expansion = 1

    def __init__(self, given: int, width: int, stride: int, inner: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(given, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(given, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """relu(shortcut(x) + BN(conv1(relu(BN(conv3(relu(BN(conv1(x))))))))), figure 5 right."""

    expansion = 4

    def __init__(self, given: int, width: int, stride: int, inner: int) -> None:
        super().__init__()
        out = width * self.expansion
        self.conv1 = nn.Conv2d(given, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = _shortcut(given, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


def _shortcut(given: int, out: int, stride: int) -> nn.Sequential | None:
    """The identity where the shapes allow it, else a 1 x 1 projection (option B of section 3.3)."""
    if stride == 1 and given == out:
        return None
    return nn.Sequential(nn.Conv2d(given, out, 1, stride, bias=False), nn.BatchNorm2d(out))


@dataclass(frozen=True)
class Architecture:
    block: type[Basic] | type[Bottleneck]
    depths: tuple[int, int, int, int]  # blocks of stages 1 to 4 (table 1 of He et al.)
    widen: int = 1  # factor on the inner width of a bottleneck


RESNETS = {
    "resnet18": Architecture(Basic, (2, 2, 2, 2)),
    "resnet34": Architecture(Basic, (3, 4, 6, 3)),
    "resnet50": Architecture(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Architecture(Bottleneck, (3, 4, 23, 3)),
    "resnet152": Architecture(Bottleneck, (3, 8, 36, 3)),
    "wide_resnet50_2": Architecture(Bottleneck, (3, 4, 6, 3), widen=2),
    "wide_resnet101_2": Architecture(Bottleneck, (3, 4, 23, 3), widen=2),
}


class ResNet(nn.Module):
    """Stem (stride 4), stages of residual blocks (strides 4, 8, 16, 32), and the tensors of the published head.

    The head has no forward pass here: methods put one of their own on the maps (``classifier.MeanHead``).

    Args:
        name: one of ``RESNETS``.
        channels: image channels (published: 3).
        classes: outputs of the head (published: 1000), whose tensors public files name; 0: no head.
        stages: how many stages there are, 1 to 4; the head sits on the last.
        width: channels of the stem (published: 64); everything else follows.

    Attributes:
        channels: of the stages' maps. strides: of the same.
        spare: how the names of published tensors begin that are not this network's: stages above, the head of 1000 classes.
    """

    def __init__(self, name: str, *, channels: int = 3, classes: int = 1000, stages: int = 4, width: int = 64) -> None:
        super().__init__()
        a = RESNETS[name]
        self.conv1 = nn.Conv2d(channels, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        given, maps = width, []
        for k, depth in enumerate(a.depths[:stages]):
            w, blocks = width << k, []
            for i in range(depth):
                blocks.append(a.block(given, w, 2 if k and not i else 1, w * a.widen))
                given = w * a.block.expansion
            self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
            maps.append(given)
        self.channels = tuple(maps)
        self.strides = tuple(4 << k for k in range(stages))
        self.spare = (*(f"layer{k}." for k in range(stages + 1, 5)), "fc.")
        self.fc = nn.Linear(given, classes) if classes else None
        for m in self.modules():
            if isinstance(m, nn.Conv2d):  # He et al., ICCV 2015, counted over the outputs, as torchvision does
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

    def stages(self, x: Tensor, last: int | None = None) -> tuple[Tensor, ...]:
        """(N, channels, H, W) -> the maps of stages 1 to ``last`` (all), ReLU included.

        (N, channels[k], H / strides[k], W / strides[k]) each, rounded up.
        """
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x)), inplace=True), 3, 2, 1)
        maps = []
        for k in range(last or len(self.channels)):
            x = self.get_submodule(f"layer{k + 1}")(x)
            maps.append(x)
        return tuple(maps)


def resnet18(*, channels: int = 3, classes: int = 1000, stages: int = 4, width: int = 64) -> ResNet:
    return ResNet("resnet18", channels=channels, classes=classes, stages=stages, width=width)


def resnet50(*, channels: int = 3, classes: int = 1000, stages: int = 4, width: int = 64) -> ResNet:
    return ResNet("resnet50", channels=channels, classes=classes, stages=stages, width=width)


def wide_resnet50_2(*, channels: int = 3, classes: int = 1000, stages: int = 4, width: int = 64) -> ResNet:
    return ResNet("wide_resnet50_2", channels=channels, classes=classes, stages=stages, width=width)
