"""What StarGAN and Fixed-Point GAN share: one generator for all domains, steered by label planes, and a critic that also names
the domain. The equations stand with each method.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError
from ..losses import domains
from ..networks.stargan import Critic, Generator, check_sizes
from ..types import Batch, Domains, Needs, Spec
from .alternating import AlternatingGAN
from .base import Losses, Optimisers, Reach
from .checks import require_positive, require_share
from .schedules import Decay

Encoding = Literal["auto", "binary", "one-hot", "multi-hot"]


@dataclass(frozen=True, kw_only=True)
class ConditionalConfig:
    """Settings that both methods have."""

    steps: int = 200_000  # critic steps; StarGAN's code, Fixed-Point GAN's appendix
    width: int = 64  # StarGAN's code: channels of the generator's first layer
    blocks: int = 6  # StarGAN's code: residual blocks
    critic_width: int = 64  # StarGAN's code
    critic_layers: int = 6  # StarGAN's code: halvings; fewer for sizes that are no multiple of 64
    encoding: Encoding = "auto"  # auto: two classes binary, more one-hot, attributes multi-hot
    lambda_gp: float = 10.0  # both papers
    n_critic: int = 5  # StarGAN's code: the generator moves at every fifth step
    lr: float = 1e-4  # both papers, for G and D
    betas: tuple[float, float] = (0.5, 0.999)  # StarGAN's code
    decay: Decay = "constant"
    decay_share: float = 0.5  # StarGAN: the last 100,000 of 200,000 steps
    score: Literal["max", "mean"] = "max"  # Fixed-Point GAN, section 4.2: maximum over the map

    def __post_init__(self) -> None:
        require_positive(self, "steps", "width", "critic_width", "critic_layers", "n_critic", "lr")
        require_share(self, "decay_share")


class ConditionalGAN(AlternatingGAN):
    """Symbols: x image, c_x its domain code, c_y the target code, G generator, D critic (patch map, domain logits)."""

    needs = Needs.LABELLED
    reaches: ClassVar[Reach] = "all"
    config: ConditionalConfig

    def __init__(self, config: ConditionalConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        check_sizes(spec.height, spec.width, config.critic_layers)
        self.encoding = resolve_encoding(config.encoding, spec.domains)
        self.planes = 1 if self.encoding == "binary" else len(spec.domains.names)
        self.G = Generator(spec.channels, self.planes, spec.channels, width=config.width, blocks=config.blocks)
        self.D = Critic(
            spec.channels, self.planes, (spec.height, spec.width), width=config.critic_width, layers=config.critic_layers
        )

    # Domain codes

    def encode(self, label: Tensor) -> Tensor:
        """Labels as the loader gives them, (N,) classes or (N, K) attributes -> codes (N, planes) float32."""
        if not self.spec.domains.exclusive:
            return label.float()
        if self.encoding == "binary":
            return label.float()[:, None]
        return F.one_hot(label, self.planes).float()

    def healthy_code(self, like: Tensor) -> Tensor:
        """(N, planes): the first class of exclusive domains; no attribute at all otherwise."""
        if self.spec.domains.exclusive:
            return self.encode(torch.zeros(len(like), dtype=torch.int64, device=like.device))
        return torch.zeros(len(like), self.planes, device=like.device)

    def domain_loss(self, logits: Tensor, codes: Tensor) -> Tensor:
        """-log D_domain(c | x): cross-entropy for classes, summed binary cross-entropy for attributes or a binary plane."""
        return domains.exclusive(logits, codes) if self.encoding == "one-hot" else domains.independent(logits, codes)

    # What differs between the two

    @abstractmethod
    def translate(self, x: Tensor, c: Tensor) -> Tensor:
        """x: (N, C, H, W) in [-1, 1], c: (N, planes) -> the image in domain c, in [-1, 1]."""

    @abstractmethod
    def fakes(self, x: Tensor, c_x: Tensor, c_y: Tensor) -> Tensor:
        """The translated images that critic and generator look at, (N or 2N, C, H, W), in one pass through G."""

    @abstractmethod
    def critic_loss(self, x: Tensor, c_x: Tensor, fakes: Tensor, alpha: Tensor | None = None) -> Losses: ...

    @abstractmethod
    def generator_loss(self, x: Tensor, c_x: Tensor, c_y: Tensor, fakes: Tensor) -> Losses: ...

    # Training

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        x, c_x = batch.image, self.encode(cast(Tensor, batch.label))
        c_y = c_x[torch.randperm(len(c_x), device=c_x.device)]
        with torch.set_grad_enabled(self.moves(k)):
            fakes = self.fakes(x, c_x, c_y)
        return self.alternate(
            k,
            optimisers,
            lambda: self.critic_loss(x, c_x, fakes.detach()),
            lambda: self.generator_loss(x, c_x, c_y, fakes),
        )

    # Inference

    def heal(self, image: Tensor) -> Tensor:
        return self.translate(image, self.healthy_code(image))

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        return self.translate(image, self.encode(label))


def resolve_encoding(encoding: Encoding, spec: Domains) -> str:
    """The encoding that "auto" stands for. Raises ConfigError where domains and encoding contradict each other."""
    many = len(spec.names)
    if spec.exclusive and many < 2:
        raise ConfigError(f"only one domain ({', '.join(spec.names)})", hint="translation needs at least two; check the labels")
    if encoding == "auto":
        return "multi-hot" if not spec.exclusive else "binary" if many == 2 else "one-hot"
    if encoding == "binary" and (many != 2 or not spec.exclusive):
        raise ConfigError(f"encoding binary needs two classes, here are {many} domains", hint="use auto")
    if encoding == "one-hot" and not spec.exclusive:
        raise ConfigError("encoding one-hot needs one class per image, here are attributes", hint="use multi-hot or auto")
    return encoding
