"""The one interface. A method says what it may see (``needs``), what it gives (``localises``, ``heals``), how it learns
(``phases``) and what it thinks of an image (``predict``). Trainer, detector, evaluator and report ask nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import CapabilityError
from ..losses.precision import at_least_float32
from ..types import Batch, Needs, Prediction, Spec

Reach = Literal["nothing", "healthy", "all"]


class Losses(dict[str, Tensor]):
    """Weighted scalar terms by name; ``total`` is what is descended."""

    @property
    def total(self) -> Tensor:
        return torch.stack([at_least_float32(t) for t in self.values()]).sum()


class Optimisers:
    """The optimisers of one phase. Precision, clipping, gradient averaging and the learning-rate scale live here, once.

    This plain form serves a user's own loop; the trainer passes one that knows devices and precision.
    """

    def __init__(self, optimisers: Mapping[str, Optimizer], *, clip: float = 0.0) -> None:
        self.optimisers, self.clip = dict(optimisers), clip
        self._base = {n: [g["lr"] for g in o.param_groups] for n, o in self.optimisers.items()}

    def scale_lr(self, scale: float) -> None:
        for name, optimiser in self.optimisers.items():
            for group, lr in zip(optimiser.param_groups, self._base[name], strict=True):
                group["lr"] = lr * scale

    def parameters(self, name: str) -> list[Tensor]:
        return [p for g in self.optimisers[name].param_groups for p in g["params"]]

    def descend(self, name: str, loss: Tensor | Iterable[Tensor]) -> None:
        """One update of the optimiser ``name``. Several losses (an iterable, made one after the other) accumulate.

        Gradients flow into this optimiser's parameters only: a generator's step costs no weight gradients of its critic.
        """
        optimiser, parameters = self.optimisers[name], self.parameters(name)
        optimiser.zero_grad(set_to_none=True)
        for term in [loss] if isinstance(loss, Tensor) else loss:
            self.backward(term, parameters)
        self.finish(name, optimiser, parameters)
        torch.clear_autocast_cache()  # it holds half-precision copies of the weights as they were

    def backward(self, loss: Tensor, parameters: list[Tensor]) -> None:
        loss.backward(inputs=parameters)

    def finish(self, name: str, optimiser: Optimizer, parameters: list[Tensor]) -> None:
        if self.clip:
            nn.utils.clip_grad_norm_(parameters, self.clip)
        optimiser.step()


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with its own optimisers.

    step: one iteration of the paper, whatever that costs; it draws the batches it needs and returns its losses by network.
    steps: how many; None: one pass over the data.
    lr_scale: (k, total) -> factor on every learning rate before step k of total.
    ready: whether predictions mean something before the phase ends; if not, the method is not asked for any until then.
    finish: called once after the last step, before the last validation.
    """

    name: str
    step: Callable[[Iterator[Batch], int, Optimisers], Mapping[str, Losses]]
    steps: int | None
    optimisers: Mapping[str, Optimizer] = field(default_factory=dict)
    lr_scale: Callable[[int, int], float] = lambda k, total: 1.0
    ready: bool = True
    finish: Callable[[], None] = lambda: None


class Method(nn.Module, ABC):
    """Base of every method. Subclasses own a frozen, keyword-only dataclass ``Config`` with a field ``steps``.

    Args:
        config: the method's settings.
        spec: image shape and domains. Raises ConfigError if the networks cannot take that size.
    """

    needs: ClassVar[Needs]
    localises: ClassVar[bool] = True
    heals: ClassVar[bool] = False
    class_at_inference: ClassVar[bool] = False  # takes images known to be diseased, and nothing else, when it predicts
    reaches: ClassVar[Reach] = "nothing"  # the domains that ``translate_to`` can be asked for
    title: ClassVar[str] = ""  # one line: name, authors, venue
    averaged: ClassVar[tuple[str, ...]] = ()  # attributes (modules) that a weight average (EMA) covers
    training_only: ClassVar[
        tuple[str, ...]
    ] = ()  # attributes (modules) whose tensors checkpoints keep and weights files do not
    Config: ClassVar[type]

    def __init__(self, config: Any, spec: Spec) -> None:
        super().__init__()
        self.config, self.spec = config, spec

    def check_data(self, images: int) -> list[str]:
        """Asked before any work: whether so many training images (of set A, where there are two sets) will do.

        images: how many there are, or no more than the steps will take.

        Returns remarks for the user and the run's manifest. Raises UsageError where there is no point in beginning.
        """
        return []

    @abstractmethod
    def phases(self) -> Sequence[Phase]: ...

    @abstractmethod
    def predict(self, image: Tensor) -> Prediction:
        """image: (N, C, H, W) in [-1, 1]. Each image's answer is independent of its neighbours. Call under ``no_grad``."""

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        """The images in other domains, for methods that say which they reach (``reaches``). Call under ``no_grad``.

        image: (N, C, H, W) in [-1, 1]. label: the targets in the form of ``Batch.label``: (N,) int64 indices into
        ``spec.domains.names`` (0: the healthy one, set B), or (N, K) float 0/1 for attributes. Returns (N, C, H, W) in [-1, 1].
        """
        raise CapabilityError(f"{type(self).__name__} does not translate", hint="choose a method that heals or translates")

    @classmethod
    @abstractmethod
    def tiny(cls) -> tuple[Any, Spec]:
        """A configuration and spec small enough for tests: built, trained for a few steps and applied in about a second."""


def amplitude_map(image: Tensor, healed: Tensor) -> Tensor:
    """Anomaly map |image - healed| / 2, averaged over channels: (N, C, H, W) in [-1, 1] -> (N, 1, H, W) in [0, 1]."""
    return (image - healed).abs().mean(dim=1, keepdim=True) / 2


REDUCE: Mapping[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda flat: flat.mean(1),
    "max": lambda flat: flat.amax(1),
}


class HealingMethod(Method):
    """Answers by healing: map = |x - healed| / 2 averaged over channels, score = its mean or maximum (``config.score``)."""

    heals = True
    reaches: ClassVar[Reach] = "healthy"

    def translate_to(self, image: Tensor, label: Tensor) -> Tensor:
        """Towards the healthy domain only, whatever ``label`` says; methods that reach more override this."""
        return self.heal(image)

    @abstractmethod
    def heal(self, image: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> the same, healthy."""

    def predict(self, image: Tensor) -> Prediction:
        healed = self.heal(image)
        anomaly_map = amplitude_map(image, healed)
        return Prediction(REDUCE[self.config.score](anomaly_map.flatten(1)), anomaly_map, healed)
