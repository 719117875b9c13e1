"""A distance of images by the features of a trained network, VGG-16 up to relu4_2. Its weights come from a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..losses.pixels import l1
from ..losses.precision import at_least_float32
from ..networks.vgg import VGG16
from . import weightfile

UNUSED = (*(f"features.{n}." for n in (21, 24, 26, 28)), "classifier.")  # published tensors above relu4_2


def feature_l1(phi: Callable[[Tensor], Tensor], x: Tensor, target: Tensor) -> Tensor:
    """mean |φ(x) - φ(target)|, without gradient into ``target``. x, target: (N, C, H, W) in [-1, 1]. Scalar >= 0."""
    with torch.no_grad():
        wanted = phi(target)
    return l1(at_least_float32(phi(x)), at_least_float32(wanted))


def load_vgg16(path: Path | str) -> VGG16:
    """The network with the weights of a file, frozen.

    path: a .safetensors file or a state dict that torch.save wrote, tensors under their public names (``features.0.weight`` to
    ``features.19.bias``). Those of the layers above and of the classifier are left out by name; any other is refused.
    Raises ConfigError as :func:`weightfile.load` does.
    """
    vgg = VGG16()
    weightfile.load(vgg, path, name="vgg16", setting="method.features", spare=UNUSED)
    return vgg.requires_grad_(False).eval()
