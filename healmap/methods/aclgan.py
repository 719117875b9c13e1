"""ACL-GAN (Zhao, Wu and Dong, ECCV 2020): a translation must agree with its source in distribution, not pixel by pixel.

From a diseased image a there are two ways to another diseased image: at once, a -> a', and by way of a healthy one,
a -> b' -> a''. A third discriminator sees the pairs (a, a') and (a, a''); the generators try to make them alike. The generators
give an image and a mask that decides where it is used, and the mask's size is bounded from both sides.

Symbols: a diseased image (set A, the paper's S), b healthy image (set B, the paper's T), G_A, G_B generators to the two sets,
z styles from N(0, 1), E style encoders, m mask, D_A, D_B discriminators of images, D_P of pairs.

How we differ. From the authors' program: the bounds of the mask count the pixels of one image, not of the batch. Ours, where
we had no source: the bounds bear on the healing mask alone, and against D_P the generators move both kinds of pairs. An answer
needs a style, so healing uses z = 0, the middle of the styles. The map and the score are ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..losses.pixels import l1
from ..losses.precision import at_least_float32
from ..networks.munit import ContentEncoder, Decoder, StyledGenerator, StyleEncoder, check_sizes
from ..types import Batch, Prediction, Spec
from .base import REDUCE, Losses, Optimisers, Reach, amplitude_map
from .checks import require_positive
from .comparators import MunitConfig, TwoSetsGAN, beside, by_target, discriminator, judged, parts, require_not_negative


class Translation(NamedTuple):
    """Images of one step: the ways out of a, and each set's image rebuilt with its own style."""

    ab: Tensor  # b'
    aa: Tensor  # a'
    aba: Tensor  # a''
    a_again: Tensor
    b_again: Tensor
    mask: Tensor  # of b' (N, 1, H, W)


class ACLGAN(TwoSetsGAN):
    title = "ACL-GAN (Zhao, Wu and Dong, ECCV 2020)"
    reaches: ClassVar[Reach] = "all"

    @dataclass(frozen=True, kw_only=True)
    class Config(MunitConfig):
        """Defaults are the authors' program's for male to female."""

        steps: int = 350_000  # authors' program
        style: int = 8  # authors' program: numbers in a style
        g_steps: int = 2  # authors' program: generator steps after each discriminator step
        lambda_gan: float = 1.0  # authors' program
        lambda_acl: float = 0.2  # authors' program
        lambda_id: float = 1.0  # authors' program
        lambda_focus: float = 0.025  # authors' program
        delta: float = 0.001  # authors' program: weight of the bounds within the focus term
        upper: float = 0.5  # authors' program: largest share of the image that the mask should cover
        lower: float = 0.3  # authors' program: smallest; a healthy image would need 0
        epsilon: float = 0.01  # authors' program

        def __post_init__(self) -> None:
            super().__post_init__()
            require_positive(self, "style", "g_steps", "epsilon")
            require_not_negative(self, "lambda_gan", "lambda_acl", "lambda_id", "lambda_focus", "delta")
            if not 0 <= self.lower <= self.upper <= 1:
                raise ConfigError(f"mask bounds {self.lower} and {self.upper} are no range", hint="0 <= lower <= upper <= 1")

    config: ACLGAN.Config

    def __init__(self, config: ACLGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        cfg, channels = config, spec.channels
        check_sizes(spec.height, spec.width, layers=cfg.critic_layers, scales=cfg.scales)

        def generator() -> StyledGenerator:
            content = ContentEncoder(channels, width=cfg.width, blocks=cfg.blocks)
            return StyledGenerator(content, Decoder(channels + 1, width=cfg.width, blocks=cfg.blocks), cfg.style)

        self.G = nn.ModuleDict({"B": generator(), "A": generator()})
        self.G["E_B"], self.G["E_A"] = (StyleEncoder(channels, cfg.style, width=cfg.width) for _ in range(2))
        images = {"B": 1, "A": 1, "P": 2}  # that each discriminator sees together
        self.D = nn.ModuleDict({name: discriminator(cfg, n * channels) for name, n in images.items()})

    # Equations

    def compose(self, x: Tensor, domain: str, z: Tensor) -> tuple[Tensor, Tensor]:
        """Translated image m y + (1 - m) x and mask m = (tanh + 1) / 2, with (y, m) = G(x, z)."""
        out = self.G[domain](x, z).to(x.dtype)
        y, m = torch.tanh(out[:, :-1]), torch.sigmoid(2 * out[:, -1:])
        return y * m + x * (1 - m), m

    def translate(self, a: Tensor, b: Tensor) -> Translation:
        """Each generator once, on all that it has to translate; the norms keep images apart."""
        n, sizes = len(a), [len(a), len(b)]
        z_b, z_a, z_aba = torch.randn(3, n, self.config.style, device=a.device, dtype=a.dtype)
        to_b, masks = self.compose(torch.cat([a, b]), "B", torch.cat([z_b, self.G["E_B"](b).to(a.dtype)]))
        ab, b_again = to_b.split(sizes)
        to_a, _ = self.compose(torch.cat([a, ab, a]), "A", torch.cat([z_a, z_aba, self.G["E_A"](a).to(a.dtype)]))
        aa, aba, a_again = to_a.split(n)
        return Translation(ab, aa, aba, a_again, b_again, masks[:n])

    def critic_loss(self, a: Tensor, b: Tensor, t: Translation) -> Losses:
        cfg, n = self.config, len(a)
        aa, aba = t.aa.detach(), t.aba.detach()
        real_b, ab = parts(self.D["B"](torch.cat([b, t.ab.detach()])), len(b), n)
        real_a, direct, round_trip = parts(self.D["A"](torch.cat([a, aa, aba])), n, n, n)
        pair, pair_round = parts(self.D["P"](torch.cat([beside(a, aa), beside(a, aba)])), n, n)
        return Losses(
            healthy=cfg.lambda_gan * (judged(real_b, 1) + judged(ab, 0)),
            diseased=cfg.lambda_gan * (judged(real_a, 1) + (judged(direct, 0) + judged(round_trip, 0)) / 2),
            pairs=cfg.lambda_acl * (judged(pair, 1) + judged(pair_round, 0)),
        )

    def generator_loss(self, a: Tensor, b: Tensor, t: Translation) -> Losses:
        cfg, n = self.config, len(a)
        direct, round_trip = parts(self.D["A"](torch.cat([t.aa, t.aba])), n, n)
        pair, pair_round = parts(self.D["P"](torch.cat([beside(a, t.aa), beside(a, t.aba)])), n, n)
        focus = bounded_focus(t.mask, lower=cfg.lower, upper=cfg.upper, delta=cfg.delta, eps=cfg.epsilon)
        return Losses(
            adv=cfg.lambda_gan * (judged(self.D["B"](t.ab), 1) + (judged(direct, 1) + judged(round_trip, 1)) / 2),
            acl=cfg.lambda_acl * (judged(pair, 0) + judged(pair_round, 1)),
            id=cfg.lambda_id * (l1(t.a_again, a) + l1(t.b_again, b)),
            focus=cfg.lambda_focus * focus,
        )

    # Training and inference

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        a, b = batch.image, cast(Tensor, batch.healthy)
        t = self.translate(a, b)  # G stands still while D moves, so one translation serves both updates
        losses = {"D": self.critic_loss(a, b, t)}
        optimisers.descend("D", losses["D"].total)
        for i in range(self.config.g_steps):
            t = self.translate(a, b) if i else t
            losses["G"] = self.generator_loss(a, b, t)
            optimisers.descend("G", losses["G"].total)
        losses["monitor"] = Losses(mask=t.mask.detach().mean())
        return losses

    def at_rest(self, image: Tensor, domain: str) -> tuple[Tensor, Tensor]:
        """Translated image and mask with the style 0."""
        return self.compose(image, domain, image.new_zeros(len(image), self.config.style))

    def heal(self, image: Tensor) -> Tensor:
        return self.at_rest(image, "B")[0]

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        """G_A has learnt from images of set A and from G_B's, from those of set B itself only by way of them."""
        return by_target(image, label, self.heal, lambda x: self.at_rest(x, "A")[0])

    def predict(self, image: Tensor) -> Prediction:
        healed, mask = self.at_rest(image, "B")
        anomaly_map = amplitude_map(image, healed)
        return Prediction(REDUCE[self.config.score](anomaly_map.flatten(1)), anomaly_map, healed, {"mask": mask})

    @classmethod
    def tiny(cls) -> tuple[ACLGAN.Config, Spec]:
        config = cls.Config(steps=20, width=4, blocks=1, critic_width=4, critic_layers=3, scales=2)
        return config, Spec(height=32, width=32)


def bounded_focus(mask: Tensor, *, lower: float, upper: float, delta: float, eps: float) -> Tensor:
    """(δ max(0, Σ (m - upper))² + δ max(0, Σ (lower - m))² + Σ 1 / (|m - 0.5| + ε)) / (3 n), mean over the batch.

    mask: (N, 1, H, W) in [0, 1]. n: pixels of one image, which the sums are over, so the bounds weigh more in larger images:
    the weights are for 256 px. The authors' program sums over the batch; for one image it is the same. Scalar > 0.
    """
    m = at_least_float32(mask).flatten(1)  # (N, n)
    over, under = (m - upper).sum(1).clamp(min=0), (lower - m).sum(1).clamp(min=0)
    binary = (1 / ((m - 0.5).abs() + eps)).sum(1)
    return ((delta * (over.square() + under.square()) + binary) / (3 * m.shape[1])).mean()
