"""What the tests of UNIT, ACL-GAN, Council GAN, CoGAN and BiGAN share: tiny methods, two sets of images, one step."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import torch

from healmap.methods.aclgan import ACLGAN
from healmap.methods.base import Optimisers
from healmap.methods.bigan import BiGAN
from healmap.methods.cogan import CoGAN
from healmap.methods.councilgan import CouncilGAN
from healmap.methods.unit import UNIT
from healmap.types import Batch, Spec

METHODS = {"unit": UNIT, "acl-gan": ACLGAN, "council-gan": CouncilGAN, "cogan": CoGAN, "bigan": BiGAN}
PLAYERS = {name: ("G", "D", "C") if name == "council-gan" else ("G", "D") for name in METHODS}


def build(cls, seed=0, **settings):
    torch.manual_seed(seed)
    config, spec = cls.tiny()
    return cls(replace(config, **settings), spec)


def images(n=3, seed=1, channels=1):
    return torch.rand(n, channels, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def step(method, k=2, seed=3):
    torch.manual_seed(seed)
    phase = method.phases()[0]
    optimisers = Optimisers(phase.optimisers)
    return phase.step(repeat(Batch(images(), healthy=images(seed=2))), k, optimisers)


def judged(D, x, target):
    """Least squares over all scales, from the definition."""
    return sum(((m - target) ** 2).sum() / m.numel() for m in D(x))


def parameters(cls):
    """Of the published method for colour images."""
    with torch.device("meta"):
        return sum(p.numel() for p in cls(cls.Config(), Spec(channels=3)).parameters())
