"""DenseNet-169 (Huang et al., CVPR 2017): the classifier that DeScarGAN (MICCAI 2020, Table 2) compares with.

How we differ. The seed paper says nothing of its training: optimiser, class weights and augmentation are ours. It shows no map;
since the network ends in a global mean and one linear layer, its CAM costs nothing and is given: 1/32 of the image's side, or
finer where the network ends earlier (``stages``, ours).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from ..networks.densenet import DenseNet, densenet169
from ..types import Spec
from .backbone import BackboneConfig
from .classifier import StagedClassifier, StagedConfig


class DenseNet169(StagedClassifier):
    title = "DenseNet-169 (Huang et al., CVPR 2017)"

    @dataclass(frozen=True, kw_only=True)
    class Config(StagedConfig):
        NETWORKS: ClassVar[tuple[str, ...]] = ("densenet169",)
        WIDTH: ClassVar[str] = "growth"
        backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="densenet169"))  # weights="": from scratch
        stages: int = 4  # table 1: dense blocks; ours: fewer leave a finer map, as with ResNet-50
        growth: int = 32  # table 1: channels that a layer adds; only this one has public weights

    config: DenseNet169.Config

    def trunk(self, channels: int) -> DenseNet:
        cfg = self.config
        return densenet169(channels=channels, classes=0, stages=cfg.stages, growth=cfg.growth)

    @classmethod
    def tiny(cls) -> tuple[DenseNet169.Config, Spec]:
        return cls.Config(steps=20, stages=2, growth=2), Spec(height=32, width=32)
