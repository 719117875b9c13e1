"""ResNet-50 with class activation maps (He et al., CVPR 2016; Zhou et al., CVPR 2016), cut off at three depths.

As Fixed-Point GAN (ICCV 2019, section 4.2) compares with it: the earlier the network ends, the finer its map and the less it
has seen. Each depth is a classifier trained by itself, with a head of its own.

    stages=4    map of 1/32 of the image's side: 8 x 8 at 256 px
    stages=3    1/16: 16 x 16
    stages=2    1/8: 32 x 32

How we differ. The paper gives no initial weights, optimiser, length or augmentation: ours. It quantises the colours of each map
to find lesions, which finds some in every image, healthy ones too; ours keep their raw values, and one threshold serves all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import ConfigError
from ..networks.resnet import ResNet
from ..types import Spec
from .backbone import BackboneConfig
from .base import Phase
from .checks import require_positive
from .classifier import Classifier, ClassifierConfig, MeanHead, check_size

PUBLISHED_WIDTH = 64


class ResNet50CAM(Classifier):
    title = "ResNet-50 with CAM (He et al.; Zhou et al., both CVPR 2016)"

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassifierConfig):
        backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="resnet50"))  # weights="": from scratch
        stages: int = 4  # section 4.2 of Fixed-Point GAN: 4, 3 and 2 for maps of 8 x 8, 16 x 16 and 32 x 32
        width: int = PUBLISHED_WIDTH  # He et al., table 1: channels of the first layer; only this one has public weights

        def __post_init__(self) -> None:
            super().__post_init__()
            require_positive(self, "width")
            if not self.backbone.name.endswith(("resnet18", "resnet50", "resnet50_2")):
                hint = "use resnet50, resnet18 or wide_resnet50_2"
                raise ConfigError(f"backbone '{self.backbone.name}' is no residual network", hint=hint)
            if not 1 <= self.stages <= 4:
                raise ConfigError(f"stages {self.stages} is not 1, 2, 3 or 4", hint="4 is the whole network")
            if self.backbone.weights and self.width != PUBLISHED_WIDTH:
                what = f"weights are of width {PUBLISHED_WIDTH}, here it is {self.width}"
                raise ConfigError(what, hint="leave out method.width or method.backbone.weights")

    config: ResNet50CAM.Config
    net: MeanHead

    def __init__(self, config: ResNet50CAM.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_size(spec, 2 << config.stages, ", or fewer method.stages")
        published = bool(config.backbone.weights)
        channels = 3 if published else spec.channels
        trunk = ResNet(config.backbone.name, channels=channels, classes=0, stages=config.stages, width=config.width)
        self.net = MeanHead(trunk, self.classes, published=published)

    def phases(self) -> Sequence[Phase]:
        self.net.load(self.config.backbone)
        return super().phases()

    @classmethod
    def tiny(cls) -> tuple[ResNet50CAM.Config, Spec]:
        return cls.Config(steps=20, stages=3, width=4), Spec(height=32, width=32)
