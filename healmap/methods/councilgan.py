"""Council GAN (Nizan and Tal, CVPR 2020): several generators that must agree on what to change, instead of a cycle.

Each member of the council heals in its own way and has two opponents: a discriminator that knows healthy images, and a
council discriminator that sees a translation together with its source and tells the member's work from the others'. Members
that drop what belongs to the source are told apart, so they keep it. Masks decide where an image changes, and are asked to
be small, binary and smooth.

Symbols: a source image (set A), b healthy image (set B), s style from N(0, 1), y_i = G_i(a, s), D_i discriminators of images,
C_i of pairs (image, source), m masks.

How we differ. From the authors' program: its style encoders (2,779,328 parameters a member) have no part in the losses and are
left out; the council's weight follows running means, not the last 100 values; the masks' size is squared image by image.
Ours, where we had no source: all members see the same style of an image, and the council discriminators rest until the
council's first step. Healing uses s = 0, and the mean of the members' images and maps; the score is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..losses.masks import mask_binary, mask_size
from ..networks.munit import ContentEncoder, FineDecoder, StyledGenerator, check_sizes
from ..types import Batch, Prediction, Spec
from .base import REDUCE, Losses, Optimisers, amplitude_map
from .checks import require_positive
from .comparators import MunitConfig, TwoSetsGAN, beside, discriminator, judged, parts, require_not_negative


class Translation(NamedTuple):
    image: Tensor  # y (N, C, H, W)
    masks: Tensor  # (N, K, H, W) in [0, 1]


class CouncilGAN(TwoSetsGAN):
    title = "Council GAN (Nizan and Tal, CVPR 2020)"
    players: ClassVar[tuple[str, ...]] = ("G", "D", "C")
    training_only = ("matching",)

    @dataclass(frozen=True, kw_only=True)
    class Config(MunitConfig):
        """Defaults are the authors' program's for the removal of glasses, 128 px."""

        steps: int = 1_500_000  # authors' program: at most
        blocks: int = 5  # authors' program
        scales: int = 2  # authors' program
        style: int = 64  # authors' program: numbers in a style
        members: int = 4  # authors' program
        masks: int = 3  # authors' program: masks with an image each, applied one after the other
        council_start: int = 10_000  # authors' program: step from which the council counts
        council_steps: int = 4  # authors' program: steps of the council discriminators for each of the generators
        focus_start: int = 15_000  # authors' program: glasses; male to female 50,000
        lambda_gan: float = 24.0  # authors' program
        lambda_council: float = 12.0  # authors' program: glasses; male to female 4
        match: bool = True  # authors' program: the council's loss is scaled to the size of the GAN's
        lambda_size: float = 57.0  # authors' program: glasses; male to female 0.5
        lambda_binary: float = 10.0  # authors' program: glasses; male to female 0.5
        lambda_tv: float = 2.2  # authors' program: glasses; male to female 0
        epsilon: float = 0.01  # authors' program

        def __post_init__(self) -> None:
            super().__post_init__()
            require_positive(self, "style", "masks", "council_steps", "epsilon")
            require_not_negative(self, "council_start", "focus_start", "lambda_gan", "lambda_council")
            require_not_negative(self, "lambda_size", "lambda_binary", "lambda_tv")
            if self.members < 2:
                raise ConfigError(f"a council of {self.members} is none", hint="use 2 members or more, published: 4")

    config: CouncilGAN.Config

    def __init__(self, config: CouncilGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        cfg, channels = config, spec.channels
        check_sizes(spec.height, spec.width, layers=cfg.critic_layers, scales=cfg.scales)

        def generator() -> StyledGenerator:
            content = ContentEncoder(channels, width=cfg.width, blocks=cfg.blocks, padding="zeros")
            decoder = FineDecoder(cfg.masks * (channels + 1), width=cfg.width, blocks=cfg.blocks)
            return StyledGenerator(content, decoder, cfg.style)

        everyone = range(cfg.members)
        self.G = nn.ModuleList(generator() for _ in everyone)
        self.D = nn.ModuleList(discriminator(cfg, channels, padding="zeros") for _ in everyone)
        self.C = nn.ModuleList(discriminator(cfg, 2 * channels, padding="zeros", council=True) for _ in everyone)
        self.matching = Matching(cfg.members)

    # Equations

    def translate(self, x: Tensor, s: Tensor, member: int) -> Translation:
        """x <- (1 - m_k) x + m_k y_k for each mask k in turn, m = (tanh(10 t) + 1) / 2."""
        out = torch.tanh(self.G[member](x, s).to(x.dtype))
        images, t = out.split([self.config.masks * x.shape[1], self.config.masks], dim=1)
        masks = torch.sigmoid(20 * t)  # (tanh(10 t) + 1) / 2
        for y, m in zip(images.chunk(self.config.masks, dim=1), masks.split(1, dim=1), strict=True):
            x = (1 - m) * x + m * y
        return Translation(x, masks)

    def critic_loss(self, b: Tensor, ys: list[Tensor]) -> Losses:
        """Healthy images against each member's."""
        losses = []
        for D, y in zip(self.D, ys, strict=True):
            real, fake = parts(D(torch.cat([b, y.detach()])), len(b), len(y))
            losses.append(judged(real, 1) + judged(fake, 0))
        return Losses(gan=self.config.lambda_gan * torch.stack(losses).sum())

    def council_critic_loss(self, a: Tensor, ys: list[Tensor]) -> Losses:
        """Each C_i: 0 for its own member's work, 1 for the others'; both sides weigh the same."""
        everyone, losses = torch.cat([beside(y.detach(), a) for y in ys]), []
        for i, C in enumerate(self.C):
            told = parts(C(everyone), *[len(a)] * len(ys))
            others = [judged(maps, 1) for j, maps in enumerate(told) if j != i]
            losses.append(judged(told[i], 0) + torch.stack(others).mean())
        return Losses(council=torch.stack(losses).sum())

    def generator_loss(self, a: Tensor, ts: list[Translation], k: int) -> Losses:
        """The sum of the members' losses; nothing of one depends on another's weights."""
        cfg = self.config
        gan = torch.stack([judged(D(t.image), 1) for D, t in zip(self.D, ts, strict=True)])  # (members,)
        losses = Losses(adv=cfg.lambda_gan * gan.sum())
        if k >= cfg.council_start:
            council = torch.stack([judged(C(beside(t.image, a)), 1) for C, t in zip(self.C, ts, strict=True)])
            scale = self.matching(gan, council) if cfg.match else 1.0
            losses["council"] = cfg.lambda_council * (scale * council).sum()
        if k >= cfg.focus_start:
            losses["focus"] = torch.stack([self.focus(t.masks) for t in ts]).sum()
        return losses

    def focus(self, masks: Tensor) -> Tensor:
        cfg = self.config
        smooth = masks.diff(dim=2).abs().mean() + masks.diff(dim=3).abs().mean()  # total variation
        return cfg.lambda_size * mask_size(masks) + cfg.lambda_binary * mask_binary(masks, cfg.epsilon) + cfg.lambda_tv * smooth

    # Training and inference

    def everyone(self, a: Tensor) -> list[Translation]:
        s = torch.randn(len(a), self.config.style, device=a.device, dtype=a.dtype)
        return [self.translate(a, s, i) for i in range(self.config.members)]

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        a, b = batch.image, cast(Tensor, batch.healthy)
        ts = self.everyone(a)  # G stands still while D and C move, so one translation serves all updates
        ys = [t.image for t in ts]
        losses = {"D": self.critic_loss(b, ys)}
        optimisers.descend("D", losses["D"].total)
        if k >= self.config.council_start:
            for i in range(self.config.council_steps):
                with torch.no_grad():
                    seen = [t.image for t in self.everyone(a)] if i else ys
                losses["C"] = self.council_critic_loss(a, seen)
                optimisers.descend("C", losses["C"].total)
        losses["G"] = self.generator_loss(a, ts, k)
        optimisers.descend("G", losses["G"].total)
        losses["monitor"] = Losses(mask=torch.stack([t.masks.detach().mean() for t in ts]).mean())
        return losses

    def at_rest(self, image: Tensor) -> list[Translation]:
        """Each member's translation with the style 0."""
        s = image.new_zeros(len(image), self.config.style)
        return [self.translate(image, s, i) for i in range(self.config.members)]

    def heal(self, image: Tensor) -> Tensor:
        return mean(t.image for t in self.at_rest(image))

    def predict(self, image: Tensor) -> Prediction:
        """Means over the members; "mask" is the share of a pixel that any mask replaces, 1 - Π (1 - m_k)."""
        ts = self.at_rest(image)
        healed, anomaly_map = mean(t.image for t in ts), mean(amplitude_map(image, t.image) for t in ts)
        mask = mean(1 - (1 - t.masks).prod(dim=1, keepdim=True) for t in ts)
        return Prediction(REDUCE[self.config.score](anomaly_map.flatten(1)), anomaly_map, healed, {"mask": mask})

    @classmethod
    def tiny(cls) -> tuple[CouncilGAN.Config, Spec]:
        small = cls.Config(steps=20, width=4, blocks=1, style=4, members=2, critic_width=4, critic_layers=3)
        return replace(small, council_start=1, council_steps=2, focus_start=2), Spec(height=32, width=32)


def mean(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(tensors)).mean(0)


class Matching(nn.Module):
    """Running means of the members' GAN and council losses; their ratio scales the council's weight."""

    means: Tensor  # (2, members); zeros before the first step

    def __init__(self, members: int, *, memory: float = 0.99) -> None:
        super().__init__()
        self.memory = memory  # ours: about the 100 values of the authors' program
        self.register_buffer("means", torch.zeros(2, members))

    @torch.no_grad()
    def forward(self, gan: Tensor, council: Tensor) -> Tensor:
        """Takes up the losses of a step, (members,) each; returns mean(gan) / mean(council), (members,)."""
        self.means.lerp_(torch.stack([gan, council]).to(self.means.dtype), 1 - self.memory)
        return self.means[0] / self.means[1].clamp(min=1e-12)  # both began at zero together: no correction is needed
