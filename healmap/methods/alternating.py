"""What methods of one generator and one critic share: the critic moves at every step, the generator at every n-th.

Which images they look at, and what they make of them, stands with each method.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from ..types import Batch
from .base import HealingMethod, Losses, Optimisers, Phase
from .optim import adam
from .schedules import lr_decay


class AlternatingGAN(HealingMethod):
    """Subclasses have networks ``G`` and ``D``, and settings steps, n_critic, lr, betas, decay and decay_share."""

    averaged = ("G",)

    def moves(self, k: int) -> bool:
        """Whether G moves at step k; where it does not, its images need no gradients."""
        return (k + 1) % self.config.n_critic == 0

    def alternate(
        self, k: int, optimisers: Optimisers, critic_loss: Callable[[], Losses], generator_loss: Callable[[], Losses]
    ) -> dict[str, Losses]:
        """The updates of step k. G stands still while D moves, so one translation serves both losses."""
        losses = {"D": critic_loss()}
        optimisers.descend("D", losses["D"].total)
        if self.moves(k):
            losses["G"] = generator_loss()
            optimisers.descend("G", losses["G"].total)
        return losses

    @abstractmethod
    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        """One iteration of the paper."""

    def phases(self) -> Sequence[Phase]:
        cfg, build = self.config, partial(adam, lr=self.config.lr, betas=self.config.betas)
        return [
            Phase(
                name="adversarial",
                step=self.step,
                steps=cfg.steps,
                optimisers={name: build(self.get_submodule(name).parameters()) for name in ("G", "D")},
                lr_scale=lr_decay(cfg.decay, cfg.decay_share),
            )
        ]
