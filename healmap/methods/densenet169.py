"""DenseNet-169 (Huang et al., CVPR 2017): the classifier that DeScarGAN (MICCAI 2020, Table 2) compares with.

How we differ. The seed paper says nothing of its training: optimiser, class weights and augmentation are ours. It shows no map;
since the network ends in a global mean and one linear layer, its CAM costs nothing and is given: 1/32 of the image's side, or
finer where the network ends earlier (``stages``, ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import ConfigError
from ..networks.densenet import densenet169
from ..types import Spec
from .backbone import BackboneConfig
from .base import Phase
from .checks import require_positive
from .classifier import Classifier, ClassifierConfig, MeanHead, check_size

PUBLISHED_GROWTH = 32


class DenseNet169(Classifier):
    title = "DenseNet-169 (Huang et al., CVPR 2017)"

    @dataclass(frozen=True, kw_only=True)
    class Config(ClassifierConfig):
        backbone: BackboneConfig = field(default_factory=lambda: BackboneConfig(name="densenet169"))  # weights="": from scratch
        stages: int = 4  # table 1: dense blocks; ours: fewer leave a finer map, as with ResNet-50
        growth: int = PUBLISHED_GROWTH  # table 1: channels that a layer adds; only this one has public weights

        def __post_init__(self) -> None:
            super().__post_init__()
            require_positive(self, "growth")
            if self.backbone.name != "densenet169":
                raise ConfigError(f"backbone '{self.backbone.name}' is no DenseNet", hint="leave it at densenet169")
            if not 1 <= self.stages <= 4:
                raise ConfigError(f"stages {self.stages} is not 1, 2, 3 or 4", hint="4 is the whole network")
            if self.backbone.weights and self.growth != PUBLISHED_GROWTH:
                what = f"weights are of growth {PUBLISHED_GROWTH}, here it is {self.growth}"
                raise ConfigError(what, hint="leave out method.growth or method.backbone.weights")

    config: DenseNet169.Config
    net: MeanHead

    def __init__(self, config: DenseNet169.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        check_size(spec, 2 << config.stages, ", or fewer method.stages")
        published = bool(config.backbone.weights)
        channels = 3 if published else spec.channels
        trunk = densenet169(channels=channels, classes=0, stages=config.stages, growth=config.growth)
        self.net = MeanHead(trunk, self.classes, published=published)

    def phases(self) -> Sequence[Phase]:
        self.net.load(self.config.backbone)
        return super().phases()

    @classmethod
    def tiny(cls) -> tuple[DenseNet169.Config, Spec]:
        return cls.Config(steps=20, stages=2, growth=2), Spec(height=32, width=32)
