"""A distance of images by the features of a trained network, VGG-16 up to relu4_2. Its weights come from a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from ..io.unpickle import plain
from ..losses.pixels import l1
from ..losses.precision import at_least_float32
from ..networks.vgg import VGG16

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

    Raises:
        ConfigError: the file is missing, is no such file, or lacks, adds or misshapes a tensor.
    """
    path, vgg = Path(path), VGG16()
    given = {k: v for k, v in _read(path).items() if not k.startswith(UNUSED)}
    wanted = vgg.state_dict()
    hint = "it must hold torchvision's vgg16 (no batch norm)"
    for name in sorted(wanted.keys() ^ given.keys()):
        what = "lack" if name in wanted else "have an unknown"
        raise ConfigError(f"VGG-16 weights {what} tensor '{name}'", where=str(path), hint=hint)
    for name, tensor in given.items():
        if tensor.shape != wanted[name].shape or not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise ConfigError(f"tensor '{name}' is no {tuple(wanted[name].shape)} of numbers", where=str(path), hint=hint)
    vgg.load_state_dict(given)
    return vgg.requires_grad_(False).eval()


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ConfigError("no such file of VGG-16 weights", where=str(path), hint="check method.features")
    try:
        given = load_file(path) if path.suffix == ".safetensors" else plain(path)
    except (SafetensorError, CheckpointError, OSError, ValueError) as error:
        hint = "give a .safetensors file, or a state dict that torch.save wrote"
        raise ConfigError(f"VGG-16 weights cannot be read: {type(error).__name__}", where=str(path), hint=hint) from None
    if not isinstance(given, Mapping) or not all(isinstance(v, Tensor) for v in given.values()):
        hint = "save the tensors by name, without anything around them"
        raise ConfigError("VGG-16 weights are no state dict", where=str(path), hint=hint)
    return dict(given)
