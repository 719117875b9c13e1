"""DenseNet (Huang et al., CVPR 2017), bottleneck and compression included, as most public ImageNet weights know it.

Tensors bear torchvision's names (``features.conv0``, ``features.denseblock1.denselayer1.norm1``, ``classifier``) in its order.
Public files know two spellings of a layer's parts; :func:`new_spelling` turns the older into the newer.
"""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DENSENETS = {  # layers of the four blocks, table 1
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
BOTTLENECK = 4  # section 3: a layer's 1 x 1 convolution gives 4 k maps
_OLD = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")


def new_spelling(name: str) -> str:
    """``...denselayer3.norm.1.weight``, as files of 2017 have it, -> ``...denselayer3.norm1.weight``; others stay."""
    return _OLD.sub(r"\1\2.", name)


class Layer(nn.Module):
    """[x, conv3(relu(BN(conv1(relu(BN(x))))))], eq. (2)."""

    def __init__(self, given: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(given)
        self.conv1 = nn.Conv2d(given, BOTTLENECK * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(BOTTLENECK * growth)
        self.conv2 = nn.Conv2d(BOTTLENECK * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x), inplace=True))
        return torch.cat((x, self.conv2(F.relu(self.norm2(y), inplace=True))), dim=1)


class Transition(nn.Module):
    """Between two blocks: pool2(conv1(x)) of x = relu(BN(the block's map)); halves channels and side. After the last: x."""

    def __init__(self, given: int, *, last: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(given)
        self.conv = None if last else nn.Conv2d(given, given // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.conv is None else F.avg_pool2d(self.conv(x), 2)


class DenseNet(nn.Module):
    """Stem (stride 4), dense blocks (strides 4, 8, 16, 32), and the tensors of the published head.

    The head has no forward pass here: methods put one of their own on the maps (``classifier.MeanHead``).

    Args:
        name: one of ``DENSENETS``.
        channels: image channels (published: 3).
        classes: outputs of the head (published: 1000), whose tensors public files name; 0: no head.
        stages: how many blocks there are, 1 to 4; the head sits on the last.
        growth: channels that each layer adds, k (published: 32); the stem has 2 k.

    Attributes:
        channels: of the stages' maps. strides: of the same.
        spare: how the names of published tensors begin that are not this network's: stages above, the head of 1000 classes.
    """

    def __init__(self, name: str, *, channels: int = 3, classes: int = 1000, stages: int = 4, growth: int = 32) -> None:
        super().__init__()
        given, maps = 2 * growth, []
        f = self.features = nn.Module()
        f.conv0 = nn.Conv2d(channels, given, 7, 2, 3, bias=False)
        f.norm0 = nn.BatchNorm2d(given)
        for k, depth in enumerate(DENSENETS[name][:stages], 1):
            block = nn.Sequential()
            for i in range(1, depth + 1):
                block.add_module(f"denselayer{i}", Layer(given, growth))
                given += growth
            f.add_module(f"denseblock{k}", block)
            maps.append(given)
            if k < 4:
                f.add_module(f"transition{k}", Transition(given, last=k == stages))
                given //= 2
            else:
                f.norm5 = nn.BatchNorm2d(given)
        self.channels = tuple(maps)
        self.strides = tuple(4 << k for k in range(stages))
        cut = [f"features.transition{stages}.conv.", "features.norm5."] if stages < 4 else []
        for k in range(stages + 1, 5):
            cut += [f"features.denseblock{k}.", f"features.transition{k}."]
        self.spare = (*cut, "classifier.")
        self.classifier = nn.Linear(maps[-1], classes) if classes else None
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight)  # He et al., ICCV 2015, as the paper says (section 4.2)

    def stages(self, x: Tensor, last: int | None = None) -> tuple[Tensor, ...]:
        """(N, channels, H, W) -> relu(BN(block k's map)) for the stages 1 to ``last`` (all): what the next layer reads.

        (N, channels[k], H / strides[k], W / strides[k]) each.
        """
        f = self.features
        x = f.get_submodule("norm0")(f.get_submodule("conv0")(x))
        x = F.max_pool2d(F.relu(x, inplace=True), 3, 2, 1)
        maps: list[Tensor] = []
        for k in range(1, (last or len(self.channels)) + 1):
            if maps:
                x = f.get_submodule(f"transition{k - 1}")(maps[-1])
            norm = f.get_submodule("norm5" if k == 4 else f"transition{k}.norm")
            maps.append(F.relu(norm(f.get_submodule(f"denseblock{k}")(x)), inplace=True))
        return tuple(maps)


def densenet169(*, channels: int = 3, classes: int = 1000, stages: int = 4, growth: int = 32) -> DenseNet:
    return DenseNet("densenet169", channels=channels, classes=classes, stages=stages, growth=growth)
