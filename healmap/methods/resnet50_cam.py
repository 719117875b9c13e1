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

from dataclasses import dataclass, field
from typing import ClassVar

from ..networks.resnet import ResNet
from ..types import Spec
from .backbone import BackboneConfig
from .classifier import StagedClassifier, StagedConfig


class ResNet50CAM(StagedClassifier):
    title = "ResNet-50 with CAM (He et al.; Zhou et al., both CVPR 2016)"

    @dataclass(frozen=True, kw_only=True)
    class Config(StagedConfig):
        NETWORKS: ClassVar[tuple[str, ...]] = ("resnet50", "resnet18", "wide_resnet50_2")  # the first published, others ours
        WIDTH: ClassVar[str] = "width"
        backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="resnet50"))  # weights="": from scratch
        stages: int = 4  # section 4.2 of Fixed-Point GAN: 4, 3 and 2 for maps of 8 x 8, 16 x 16 and 32 x 32
        width: int = 64  # He et al., table 1: channels of the first layer; only this one has public weights

    config: ResNet50CAM.Config

    def trunk(self, channels: int) -> ResNet:
        cfg = self.config
        return ResNet(cfg.backbone.name, channels=channels, classes=0, stages=cfg.stages, width=cfg.width)

    @classmethod
    def tiny(cls) -> tuple[ResNet50CAM.Config, Spec]:
        return cls.Config(steps=20, stages=3, width=4), Spec(height=32, width=32)
