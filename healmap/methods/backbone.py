"""Frozen networks whose features PaDiM and PatchCore compare: published ones, a fixed bank of filters, or one that is trained
on the healthy images at hand.

There are no weights inside healmap and none are downloaded. An ImageNet architecture reads the file that the user names;
without one it is refused, since features of random weights tell little and nobody would notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..networks.densenet import DenseNet, densenet169
from ..networks.filters import FilterBank
from ..networks.resnet import ResNet, resnet18, resnet50, wide_resnet50_2
from ..networks.vgg import DEVIATION, MEAN
from ..types import Batch
from . import pretext, weightfile
from .base import Losses, Optimisers, Phase
from .checks import require_positive
from .optim import adam

Name = Literal["resnet18", "resnet50", "wide_resnet50_2", "densenet169", "filters", "self"]

IMAGENET: dict[str, Callable[..., ResNet | DenseNet]] = {
    "resnet18": resnet18,
    "resnet50": resnet50,
    "wide_resnet50_2": wide_resnet50_2,
    "densenet169": densenet169,
}
STAGES = 3  # strides 4, 8, 16; PaDiM and PatchCore read no further


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """Which network, and where its weights come from."""

    name: Name = "resnet18"
    weights: str = ""  # file of an ImageNet architecture, .safetensors or what torch.save wrote
    # Settings of "self", a ResNet-18. Sources: ours; docs/backbones.md has what was measured.
    self_task: pretext.Task = "restoration"
    self_steps: int = 1000
    self_width: int = 32  # channels of its first layer; 64 is ResNet-18's own width, and four times the work
    self_lr: float = 1e-3

    def __post_init__(self) -> None:
        require_positive(self, "self_steps", "self_width", "self_lr")


class Backbone(nn.Module):
    """Maps of three scales. Always in ``eval()``, so batch norm uses its stored statistics; always without gradients.

    channels_in: of the images. An ImageNet architecture takes 1 (repeated) or 3.

    Attributes:
        channels, strides: of the maps, stage by stage.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: BackboneConfig, channels_in: int) -> None:
        super().__init__()
        self.config = config
        self.network: ResNet | DenseNet | FilterBank
        self.pretext: pretext.Restoration | pretext.Rotation | None = None
        if config.name in IMAGENET:
            if channels_in not in (1, 3):
                raise ConfigError(
                    f"backbone '{config.name}' takes images of 1 or 3 channels, not {channels_in}",
                    hint="use backbone.name=filters or backbone.name=self",
                )
            self.network = IMAGENET[config.name](classes=0, stages=STAGES)
        elif config.weights:
            raise ConfigError(f"backbone '{config.name}' takes no weights", hint="leave them out, or name another backbone")
        elif config.name == "self":
            self.network = resnet18(channels=channels_in, classes=0, stages=STAGES, width=config.self_width)
            self.pretext = pretext.head(config.self_task, channels_in, self.network.channels)
        else:
            self.network = FilterBank(channels_in)
        self.channels, self.strides = self.network.channels, self.network.strides
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Backbone:
        """Stays in ``eval()``: a method in training must not move the statistics of the network that it measures with."""
        return super().train(False)

    @torch.no_grad()
    def stages(self, image: Tensor, last: int = STAGES) -> tuple[Tensor, ...]:
        """The maps of stages 1 to ``last``; what lies above is not computed.

        image: (N, C, H, W) in [-1, 1], sides as :meth:`check_size` wants them.
        Returns (N, channels[k], H / strides[k], W / strides[k]) each.
        """
        image = image.to(self.mean.dtype)
        if self.config.name in IMAGENET:
            image = ((image.expand(-1, 3, -1, -1) + 1) / 2 - self.mean) / self.deviation
        return self.network.stages(image, last)

    def check_size(self, height: int, width: int) -> None:
        """Raises ConfigError unless the three grids fit into each other and the smallest has at least two rows and columns."""
        step = self.strides[-1]
        for name, side in (("height", height), ("width", width)):
            if side % step or side < 2 * step:
                near = max(2 * step, round(side / step) * step)
                raise ConfigError(
                    f"image {name} {side} does not fit the backbone, whose stages have strides 4, 8 and 16",
                    hint=f"use {near} pixels or another multiple of {step}, at least {2 * step}",
                )

    def begin(self) -> list[Phase]:
        """What has to happen before the first feature: reads the weights, or gives the phases that train the network.

        Raises:
            ConfigError: no weights named, or a file that does not hold them (see :func:`weightfile.load`).
        """
        name, path = self.config.name, self.config.weights
        if self.pretext is not None:
            owned = [*self.network.parameters(), *self.pretext.parameters()]
            optimisers = {"backbone": adam(owned, lr=self.config.self_lr, betas=(0.9, 0.999))}
            steps, scale = self.config.self_steps, pretext.lr_scale
            return [Phase(name="backbone", step=self.step, steps=steps, optimisers=optimisers, lr_scale=scale, ready=False)]
        if not isinstance(self.network, FilterBank):
            if not path:
                raise ConfigError(
                    f"backbone '{name}' has no weights",
                    hint="give its ImageNet file with method.backbone.weights=FILE, or take method.backbone.name=filters "
                    "(fixed) or method.backbone.name=self (trained on your healthy images)",
                )
            weightfile.load(self.network, path, name=name, setting="method.backbone.weights", spare=self.network.spare)
        return []

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> dict[str, Losses]:
        """One step of the network's own training, on healthy images."""
        assert self.pretext is not None
        with self._learning():
            losses = self.pretext.losses(self.network, next(batches).image)  # type: ignore[arg-type]
            optimisers.descend("backbone", losses.total)
        return {"backbone": losses}

    @contextmanager
    def _learning(self) -> Iterator[None]:
        """Within, the network is in training mode and takes gradients; outside it never is."""
        try:
            super().train(True)
            self.requires_grad_(True)
            yield
        finally:
            self.requires_grad_(False)
            self.eval()
