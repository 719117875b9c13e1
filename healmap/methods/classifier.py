"""Plain classifiers with a map: the honest question to any healing method is whether it beats one of these.

Trained on image-level labels alone; the score is the probability of disease, the map says which places speak for it (``cam``).

Symbols: x image, y its class (0 healthy), f the last map, S_c the logits, K classes, n_c images of class c among n.

    loss:   (1/N) Σ_i w_{y_i} (-log softmax(S(x_i))_{y_i}),  w_c = n / (K n_c)
    score:  1 - P(healthy)
    map:    what of the CAM or Grad-CAM of the log-odds of disease is above zero

The weights w_c make every class count the same, whatever its share of the data; the loss is then that of a set with as many
images of each, and a probability of 1/2 is the even point between them, not the share of diseased images. Batch norm uses its
stored averages at inference: an image's answer is its own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from ..losses.precision import at_least_float32
from ..networks.densenet import DenseNet
from ..networks.resnet import ResNet
from ..networks.vgg import DEVIATION, MEAN
from ..types import Batch, Needs, Prediction, Spec
from . import cam, weightfile
from .augment import Augmentation, augment
from .backbone import BackboneConfig
from .base import Losses, Method, Optimisers, Phase
from .checks import require_betas, require_positive, require_share, require_unset
from .optim import adam
from .processes import several
from .schedules import Decay, lr_decay


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Settings that all classifiers have. The founding papers name none of them: ours, unless a source is given."""

    steps: int = 20_000  # with batches of 16 ten passes over 31,000 films (DeScarGAN's CheXpert); the best weights are kept
    cam: Literal["cam", "grad"] = "cam"  # the map: CAM, or Grad-CAM of the same map and the same answer
    balance: Literal["classes", "none"] = "classes"  # weights w_c from the classes' shares so far, or 1
    augment: Augmentation = field(default_factory=Augmentation)
    lr: float = 1e-4  # Adam's, as in DeScarGAN's section 4; from scratch or from weights
    betas: tuple[float, float] = (0.9, 0.999)  # Adam's own
    decay: Decay = "constant"
    decay_share: float = 0.5

    def __post_init__(self) -> None:
        require_positive(self, "steps", "lr")
        require_betas(self)
        require_share(self, "decay_share")


class Seen(nn.Module):
    """How many images of each class training has seen, over all processes: what weights w_c are made of.

    They are the shares among all images seen so far. A class that was not seen yet counts as one image.
    """

    counts: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(classes, dtype=torch.int64))

    def add(self, label: Tensor) -> None:
        new = F.one_hot(label, len(self.counts)).sum(0)
        if several():
            torch.distributed.all_reduce(new)
        self.counts += new

    def weights(self) -> Tensor:
        """w_c = n / (K n_c): (K,) float32; once every class was seen, their mean over the images seen is 1."""
        n = self.counts.clamp_min(1)
        return (n.sum() / (len(n) * n)).float()


class Network(nn.Module):
    """From image to last map f, from there to the logits S."""

    @abstractmethod
    def last_map(self, x: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] -> (N, k, h, w)."""

    @abstractmethod
    def logits(self, f: Tensor) -> Tensor:
        """(N, k, h, w) -> (N, K)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.last_map(x))


class Classifier(Method):
    """Subclasses have a network ``net``."""

    needs = Needs.LABELLED
    averaged = ("net",)
    training_only = ("seen",)
    config: Any
    net: Network

    def __init__(self, config: ClassifierConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        names, kind = spec.domains.names, "classes" if spec.domains.exclusive else "attributes"
        if not spec.domains.exclusive or len(names) < 2:
            raise ConfigError(
                f"a classifier tells two or more classes apart of which an image has one, here are {len(names)} {kind}",
                where=", ".join(names),
                hint="set data.domain_column=label, or to a column of classes",
            )
        self.classes = len(names)
        self.seen = Seen(self.classes)

    # Training

    def loss(self, logits: Tensor, label: Tensor) -> Losses:
        """logits: (N, K), label: (N,) int64. Mean over the batch, so that in the long run every class has the same weight."""
        each = F.cross_entropy(at_least_float32(logits), label, reduction="none")
        if self.config.balance == "classes":
            each = self.seen.weights()[label] * each
        return Losses(cross_entropy=each.mean())

    def step(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        batch = next(batches)
        x, label = augment(batch.image, self.config.augment), cast(Tensor, batch.label)
        self.seen.add(label)
        logits = self.net(x)
        losses = self.loss(logits, label)
        optimisers.descend("net", losses.total)
        right = (logits.detach().argmax(1) == label).float().mean()
        return {"net": losses, "monitor": Losses(accuracy=right)}  # not descended

    def phases(self) -> Sequence[Phase]:
        cfg = self.config
        optimiser = adam(self.net.parameters(), lr=cfg.lr, betas=cfg.betas)
        decay = lr_decay(cfg.decay, cfg.decay_share)
        return [Phase(name="classify", step=self.step, steps=cfg.steps, optimisers={"net": optimiser}, lr_scale=decay)]

    # Inference

    def evidence(self, f: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, K), and at every place of f the signed evidence for disease, (N, 1, h, w)."""
        if self.config.cam == "cam" and isinstance(self.net, MeanHead):
            logits = self.net.logits(f)
            return logits, cam.cam(f, self.net.head.weight, logits)
        logits, g = cam.gradients(self.net.logits, f)
        return logits, (cam.grad_cam if self.config.cam == "grad" else cam.by_place)(f, g)

    def predict(self, image: Tensor) -> Prediction:
        logits, evidence = self.evidence(self.net.last_map(image))
        anomaly_map = cam.enlarge(evidence, (image.shape[2], image.shape[3]))
        probabilities = at_least_float32(logits).softmax(1).to(image.dtype)
        score = cam.log_odds(logits).sigmoid().to(image.dtype)  # 1 - P(healthy), without the rounding of 1
        return Prediction(score, anomaly_map.to(image.dtype), None, {"probabilities": probabilities})


class MeanHead(Network):
    """A published trunk, the mean over places, one linear layer.

    trunk: without a head of its own. published: with weights of a file, so images come as it knows them: three channels, grey
    repeated, ImageNet's mean and deviation.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, trunk: ResNet | DenseNet, classes: int, *, published: bool) -> None:
        super().__init__()
        self.trunk, self.published = trunk, published
        self.head = nn.Linear(trunk.channels[-1], classes)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)

    def last_map(self, x: Tensor) -> Tensor:
        if self.published:
            x = ((x.expand(-1, 3, -1, -1) + 1) / 2 - self.mean) / self.deviation
        return self.trunk.stages(x)[-1]

    def logits(self, f: Tensor) -> Tensor:
        return self.head(f.mean((2, 3)))

    def load(self, backbone: BackboneConfig) -> None:
        """The trunk's weights from the file that is named, if any. Raises ConfigError (see :func:`weightfile.load`)."""
        if not backbone.weights:
            return
        spare = self.trunk.spare  # the head for 1000 classes, and what lies above the cut
        weightfile.load(self.trunk, backbone.weights, name=backbone.name, setting="method.backbone.weights", spare=spare)


@dataclass(frozen=True, kw_only=True)
class StagedConfig(ClassifierConfig):
    """Settings of a published network that may end after any of its four stages. Defaults and their sources: the method's."""

    NETWORKS: ClassVar[tuple[str, ...]]  # backbones that the method takes
    WIDTH: ClassVar[str]  # the setting that makes the network wide or narrow; public weights are of its default
    backbone: BackboneConfig
    stages: int

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, self.WIDTH)
        backbone, width, published = self.backbone, getattr(self, self.WIDTH), getattr(type(self), self.WIDTH)
        if backbone.name not in self.NETWORKS:
            raise ConfigError(f"backbone '{backbone.name}' is not this method's", hint=f"use {', '.join(self.NETWORKS)}")
        own = [f.name for f in fields(backbone) if f.name.startswith("self_")]
        require_unset(backbone, *own, reason="it belongs to the backbone 'self', which no classifier has", hint="leave it out")
        if not 1 <= self.stages <= 4:
            raise ConfigError(f"stages {self.stages} is not 1, 2, 3 or 4", hint="4 is the whole network")
        if backbone.weights and width != published:
            what = f"weights are of {self.WIDTH} {published}, here it is {width}"
            raise ConfigError(what, hint=f"leave out method.{self.WIDTH} or method.backbone.weights")


class StagedClassifier(Classifier):
    """A published network, whole or cut off after some stages, under a :class:`MeanHead`."""

    config: Any
    net: MeanHead

    def __init__(self, config: StagedConfig, spec: Spec) -> None:
        super().__init__(config, spec)
        check_size(spec, 2 << config.stages, ", or fewer method.stages")
        published = bool(config.backbone.weights)
        self.net = MeanHead(self.trunk(3 if published else spec.channels), self.classes, published=published)

    @abstractmethod
    def trunk(self, channels: int) -> ResNet | DenseNet:
        """The network without its head, for images of so many channels."""

    def phases(self) -> Sequence[Phase]:
        self.net.load(self.config.backbone)
        return super().phases()


def check_size(spec: Spec, stride: int, advice: str = "") -> None:
    """Raises ConfigError where the last map, ``stride`` times smaller than the image, would be a single place."""
    for name, side in (("height", spec.height), ("width", spec.width)):
        if side < 2 * stride:
            raise ConfigError(
                f"image {name} is {side}, but the classifier's map is {stride} times smaller: a single place",
                hint=f"use {2 * stride} pixels or more{advice}",
            )
