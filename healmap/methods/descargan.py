"""DeScarGAN (Wolleb et al., MICCAI 2020): two sets translated into each other by a generator with a branch per class.

Made for changes of what is there already (atrophy, effusion): a whole new image is generated, not an additive map. Skip
connections below full resolution, an identity and a reconstruction loss keep what need not change; the discriminator has a
critic per class and a classifier, whose answer is the score.

Symbols: c in {g, k} the classes healthy and diseased (0 and 1 in pairs), c̄ the other one, x_c images of class c (the paper's
r_c), G_c the generator's branch, D_c a critic (mean of its map), D_cls the classifier, e noise.

How we differ. From the paper (``losses="paper"``): ‖·‖₂ is divided by √n, for the weights belong to means; x̂_c of eq. (1) lies
between x_c and what D_c is shown as artificial, G_c(x_c̄). To the letter it lies between x_c and G_c(x_c), which eq. (3) makes
equal, and nothing would bound the critic's slope between real and artificial images. Each call of the generator holds images
of one class, since its batch norm takes their statistics together. From the authors' code (``"released"``): its count of
critic steps does not begin anew with each pass over the data. Two slips of that code are put right in ``"mended"``: shares of
the classes are of the batch, not of ten images whatever its size, and in the reconstruction an image meets its own noise, not
that of every image of its class. At inference each image has its own statistics, as in the authors' scripts
(``statistics="running"``: the running ones, another function).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..losses.adversarial import average, gradient_penalty
from ..losses.pixels import mse
from ..losses.precision import at_least_float32
from ..networks.descargan import Discriminator, Generator, check_sizes
from ..types import Batch, Needs, Prediction, Spec
from .alternating import AlternatingGAN
from .base import REDUCE, Losses, Optimisers, Reach, amplitude_map
from .checks import require_positive, require_share
from .schedules import Decay

Pair = tuple[Tensor, Tensor]  # of class 0 (healthy) and class 1 (diseased)
CLASSES = (0, 1)
TENTHS = 10  # authors' code: the divisor of the classes' shares, its batch size


class DeScarGAN(AlternatingGAN):
    title = "DeScarGAN (Wolleb et al., MICCAI 2020)"
    needs = Needs.LABELLED
    reaches: ClassVar[Reach] = "all"

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Defaults are the paper's (section 4); where it is silent, the authors' code's."""

        steps: int = 200_000  # critic steps; authors' code: 500 passes over 2 x 2,000 images in batches of 10
        width: int = 64  # Fig. 2: channels of the generator's first layer
        critic_width: int = 32  # Fig. 3
        dropout: float = 0.1  # authors' code: classifier, in training
        losses: Literal["paper", "mended", "released"] = "paper"  # eqs. (1) to (8), or the code without and with its slips
        noise: float = 0.05  # authors' code: times U(0, 1), added to inputs and outputs; not with losses="paper"
        lambda_adv_d: float = 20.0  # section 4
        lambda_gp: float = 10.0  # section 4; eq. (1) has it inside the adversarial loss, the authors' code beside it
        lambda_cls_d: float = 5.0  # section 4
        lambda_adv_g: float = 1.0  # section 4
        lambda_cls_g: float = 1.0  # section 4
        lambda_id: float = 50.0  # section 4
        lambda_rec: float = 50.0  # section 4
        n_critic: int = 5  # section 4
        lr: float = 1e-4  # section 4, for G and D
        betas: tuple[float, float] = (0.5, 0.999)  # section 4
        decay: Decay = "constant"  # the paper mentions none
        decay_share: float = 0.5  # ours: as StarGAN's, where a decay is asked for
        flip_vertical: bool = False  # authors' code: with probability 1/2; left to right is data.flip
        statistics: Literal["image", "running"] = "image"  # batch norm at inference; authors' scripts: of the one image
        score: Literal["class", "map-mean", "map-max"] = "class"  # section 2: D_cls

        def __post_init__(self) -> None:
            require_positive(self, "steps", "width", "critic_width", "n_critic", "lr")
            require_share(self, "dropout")
            require_share(self, "decay_share")
            weights = [self.lambda_adv_d, self.lambda_gp, self.lambda_cls_d, self.lambda_adv_g, self.lambda_cls_g]
            if min(*weights, self.lambda_id, self.lambda_rec, self.noise) < 0:
                raise ConfigError("a weight or the noise is negative", hint="all lambda_… and noise are >= 0")

    config: DeScarGAN.Config

    def __init__(self, config: DeScarGAN.Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if len(spec.domains.names) != 2 or not spec.domains.exclusive:
            kind = "classes" if spec.domains.exclusive else "attributes"
            raise ConfigError(
                f"DeScarGAN has a branch for each of two classes, here are {len(spec.domains.names)} {kind}",
                where=", ".join(spec.domains.names),
                hint="name 2 of them in data.domains, or use stargan",
            )
        check_sizes(spec.height, spec.width)
        self.G = Generator(spec.channels, width=config.width, running=config.statistics == "running")
        self.D = Discriminator(spec.channels, (spec.height, spec.width), width=config.critic_width, dropout=config.dropout)

    # Images

    def translate(self, x: Tensor, c: int) -> Tensor:
        """G_c(x): (N, C, H, W) in [-1, 1] -> the same, towards class c. N may be 0."""
        return self.G(x, c) if len(x) else x

    def fakes(self, x: Pair, e: Pair) -> Pair:
        """What each critic is shown as artificial: G_c(x_c̄); in the authors' code all images of the batch, G_c(x) + e."""
        if self.config.losses == "paper":
            return self.translate(x[1], 0), self.translate(x[0], 1)
        z, noise = torch.cat(x), torch.cat(e)
        return self.translate(z, 0) + noise, self.translate(z, 1) + noise

    def same_and_other(self, x: Pair, fakes: Pair) -> tuple[Pair, Pair]:
        """G_c(x_c) and G_c̄(x_c), both by c; what is among the fakes is taken from there."""
        if self.config.losses == "paper":
            return (self.translate(x[0], 0), self.translate(x[1], 1)), (fakes[1], fakes[0])
        to_g, to_k = fakes[0].split(sizes(x)), fakes[1].split(sizes(x))
        return (to_g[0], to_k[1]), (to_k[0], to_g[1])

    # Losses. x: real images by class (with noise, if any); e: that noise; fakes: from ``fakes``.

    def critic_loss(self, x: Pair, fakes: Pair, alpha: Tensor | None = None) -> Losses:  # eqs. (1), (4), (8)
        """alpha: (N, 1, 1, 1) in [0, 1], for the images of class g, then k."""
        cfg, n, m = self.config, sizes(x), sizes(fakes)
        total = TENTHS if cfg.losses == "released" else sum(n)
        p = (n[0] / total, n[1] / total)  # with a class's mean: its part of the expectation
        p_fake = (p[1], p[0]) if cfg.losses == "paper" else p
        h = self.D.features(torch.cat([x[0], fakes[0], x[1], fakes[1]])).split([n[0] + m[0], n[1] + m[1]])
        source = [self.D.critic(h[c], c) for c in CLASSES]
        lambda_gp = cfg.lambda_gp * (cfg.lambda_adv_d if cfg.losses == "paper" else 1)  # (8) weighs all of (1)
        return Losses(
            real=-cfg.lambda_adv_d * over(p, lambda c: average(source[c][: n[c]])),  # (1)
            fake=cfg.lambda_adv_d * over(p_fake, lambda c: average(source[c][n[c] :])),  # (1)
            gp=lambda_gp * self.penalty(x, fakes, alpha),  # (1)
            cls=cfg.lambda_cls_d * over(p, lambda c: misnamed(self.D.logits(h[c][: n[c]]), c)),  # (4)
        )

    def penalty(self, x: Pair, fakes: Pair, alpha: Tensor | None = None) -> Tensor:
        """E (‖∇D_c(x̂_c)‖₂ - 1)² of eq. (1); in the authors' code of both critics on all images with one alpha, added."""
        if self.config.losses == "paper":
            real, artificial = x, (partners(x[0], *fakes), partners(x[1], *fakes[::-1]))
        else:
            every = torch.cat(x)
            real, artificial = (every, every), fakes
            if alpha is None:
                alpha = torch.rand(len(every), 1, 1, 1, device=every.device, dtype=every.dtype)
            alpha = torch.cat([alpha, alpha])

        def critics(y: Tensor) -> Tensor:
            return torch.cat([self.D.critic(h, c) for c, h in enumerate(self.D.features(y).split(sizes(real))) if len(h)])

        times = 1 if self.config.losses == "paper" else 2
        return times * gradient_penalty(critics, torch.cat(real), torch.cat(artificial), alpha)

    def generator_loss(self, x: Pair, e: Pair, fakes: Pair) -> Losses:  # eq. (7)
        cfg, n, m = self.config, sizes(x), sizes(fakes)
        if cfg.losses == "paper":
            p, p_fake, distance = (n[0] / sum(n), n[1] / sum(n)), (n[1] / sum(n), n[0] / sum(n)), rms
        else:  # sums of the two classes' means
            p, p_fake, distance = (float(n[0] > 0), float(n[1] > 0)), (1.0, 1.0), mse
        same, other = self.same_and_other(x, fakes)
        back = (self.translate(other[0], 0), self.translate(other[1], 1))  # G_c(G_c̄(x_c))
        met = (e[0][:, None], e[1][:, None]) if cfg.losses == "released" else e  # its slip: every noise meets every image
        h = self.D.features(torch.cat(fakes)).split(m)
        return Losses(
            adv=-cfg.lambda_adv_g * over(p_fake, lambda c: average(self.D.critic(h[c], c))),  # (2)
            cls=cfg.lambda_cls_g * over(p_fake, lambda c: misnamed(self.D.logits(h[c]), c)),  # (5)
            id=cfg.lambda_id * over(p, lambda c: distance(x[c], same[c])),  # (3)
            rec=cfg.lambda_rec * over(p, lambda c: distance(x[c], back[c] + met[c])),  # (6)
        )

    # Training

    def prepare(self, image: Tensor, label: Tensor, noise: Tensor | None = None) -> tuple[Pair, Pair]:
        """Images by class, with their noise, and the noise. noise: (N, 1, H, W) in [0, 1], drawn if None."""
        cfg = self.config
        order = label.argsort(stable=True)
        # How many there are of each class decides shapes, so this step waits for the accelerator here, once.
        k = int(label.sum())
        split = [len(label) - k, k]
        if cfg.losses == "paper":
            e = image.new_zeros(len(image), 1, 1, 1)
        else:
            e = cfg.noise * (torch.rand_like(image[:, :1]) if noise is None else noise[order])
        return cast(Pair, (image[order] + e).split(split)), cast(Pair, e.split(split))

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        image, label = batch.image, cast(Tensor, batch.label)
        if self.config.flip_vertical:
            turned = torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5
            image = torch.where(turned, image.flip(2), image)
        x, e = self.prepare(image, label)
        with torch.set_grad_enabled(self.moves(k)):
            fakes = self.fakes(x, e)
        still = (fakes[0].detach(), fakes[1].detach())
        return self.alternate(k, optimisers, lambda: self.critic_loss(x, still), lambda: self.generator_loss(x, e, fakes))

    # Inference

    def heal(self, image: Tensor) -> Tensor:
        return self.translate(image, 0)

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        out = torch.empty_like(image)
        for c in CLASSES:
            out[label == c] = self.translate(image[label == c], c)
        return out

    def predict(self, image: Tensor) -> Prediction:
        healed = self.heal(image)
        anomaly_map = amplitude_map(image, healed)
        logits = at_least_float32(self.D.logits(self.D.features(image)))
        probabilities = logits.softmax(dim=1).to(image.dtype)
        if self.config.score == "class":
            score = probabilities[:, 1]
        else:
            score = REDUCE[self.config.score.removeprefix("map-")](anomaly_map.flatten(1))
        return Prediction(score, anomaly_map, healed, {"probabilities": probabilities})

    @classmethod
    def tiny(cls) -> tuple[DeScarGAN.Config, Spec]:
        return cls.Config(steps=20, width=4, critic_width=4, n_critic=2), Spec(height=32, width=32)


def sizes(pair: Pair) -> tuple[int, int]:
    return len(pair[0]), len(pair[1])


def over(weights: tuple[float, float], term: Callable[[int], Tensor]) -> Tensor:
    """Σ_c weight_c · term(c); a class of weight 0 has no images."""
    return torch.stack([w * term(c) for c, w in zip(CLASSES, weights, strict=True) if w]).sum()


def misnamed(logits: Tensor, c: int) -> Tensor:
    """E[-log D_cls^c]: cross-entropy of logits (N, 2) with one class for all. Scalar >= 0."""
    return -F.log_softmax(at_least_float32(logits), dim=1)[:, c].mean()


def rms(x: Tensor, y: Tensor) -> Tensor:
    """E[‖x - y‖₂ / √n], n values per image. x, y: (N, C, H, W). Scalar >= 0.

    With the sum that ‖·‖₂ is, the weights would mean something else at every image size, and at the paper's own the two image
    losses would outweigh the adversarial one some thousand times.
    """
    difference = at_least_float32(x - y).flatten(1)
    return (torch.linalg.vector_norm(difference, dim=1) / difference.shape[1] ** 0.5).mean()


def partners(x: Tensor, fakes: Tensor, others: Tensor) -> Tensor:
    """An artificial image of x's class for each of x, in turn; with none in the batch, x's own translations ``others``."""
    return fakes[torch.arange(len(x), device=x.device) % len(fakes)] if len(fakes) else others[: len(x)]
