"""D_cls alone: the classifier inside DeScarGAN's discriminator (Wolleb et al., MICCAI 2020, Table 2), trained without the GAN.

The difference between the two tells what the rest of DeScarGAN adds. Encoder without norm, two convolutions (the last map f, 32
times smaller than the image), then pooling and two linear layers on all places of the map.

How we differ. From the paper, which says nothing of this training: optimiser and dropout are those of the GAN's discriminator;
class weights and augmentation are ours. The head is no linear layer on a mean, so ``cam="cam"`` is the map of its weights place
by place (HiResCAM), which with such a head would be the CAM. Three or more classes widen the last layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ..networks.descargan import Discriminator
from ..types import Spec
from .checks import require_positive, require_share
from .classifier import Classifier, ClassifierConfig, Network, check_size

STRIDE = 32  # the encoder's


class ClassHead(Network):
    """The discriminator without its critics: published tensors keep their names."""

    def __init__(self, channels: int, classes: int, size: tuple[int, int], *, width: int, dropout: float) -> None:
        super().__init__()
        d = Discriminator(channels, size, width=width, dropout=dropout)
        self.encoder, self.conv2, self.linearclass = d.encoder, d.conv2, d.linearclass
        if classes != 2:
            self.linearclass[-1] = nn.Linear(64, classes)

    def last_map(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) -> (N, 16 * width, H/32, W/32): all convolutions."""
        return self.conv2[:-1](self.encoder(x))

    def logits(self, f: Tensor) -> Tensor:
        """(N, 16 * width, H/32, W/32) -> (N, classes): pooling and linear layers."""
        return self.linearclass(self.conv2[-1](f))


class DCls(Classifier):
    title = "D_cls, DeScarGAN's classifier alone (Wolleb et al., MICCAI 2020)"

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassifierConfig):
        width: int = 32  # Fig. 3
        dropout: float = 0.1  # authors' code
        betas: tuple[float, float] = (0.5, 0.999)  # section 4, as lr

        def __post_init__(self) -> None:
            super().__post_init__()
            require_positive(self, "width")
            require_share(self, "dropout")

    config: DCls.Config
    net: ClassHead

    def __init__(self, config: DCls.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_size(spec, STRIDE)
        size = (spec.height, spec.width)
        self.net = ClassHead(spec.channels, self.classes, size, width=config.width, dropout=config.dropout)

    @classmethod
    def tiny(cls) -> tuple[DCls.Config, Spec]:
        return cls.Config(steps=20, width=4), Spec(height=64, width=64)  # 64: the smallest with a map of several places
