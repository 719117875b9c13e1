"""Weights that others published: a file the user names, checked tensor by tensor. Nothing is ever downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from ..io.unpickle import plain
from ..networks.densenet import DENSENETS, DenseNet, new_spelling
from ..networks.resnet import RESNETS, ResNet
from ..networks.vgg import VGG16

COUNTER = "num_batches_tracked"  # of a batch norm; files from before 2018 lack it, and stored statistics do not need it
FRACTIONS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
Shapes = Mapping[str, tuple[int, ...]]


def load(network: nn.Module, path: Path | str, *, name: str, setting: str, spare: Iterable[str] = ()) -> None:
    """Fills ``network`` with the file's tensors.

    Args:
        path: a .safetensors file, or a state dict that torch.save wrote; tensors by their public names, floating point.
        name: the published architecture, for messages and to tell another one.
        setting: what the user set to the path.
        spare: how the names begin of published tensors that are not read: layers above, the head. A file may lack them, the
            layers or the head as a whole; what it has of them must be the architecture's, the head for any number of classes.

    Raises:
        ConfigError: the file is missing, is no such file, or a tensor is lacking, unknown, misshapen or not finite. One line
            names the first few and counts the others; weights of another known architecture are called by their name.
    """
    where, left = str(path), tuple(spare)
    every = {new_spelling(k): v for k, v in read(path, setting=setting).items()}
    read_here = {k: v for k, v in every.items() if not k.startswith(left)}
    wanted = {k: v for k, v in network.state_dict().items() if not k.startswith(left)} | _beside(every, name, left)
    given = {k: v for k, v in every.items() if k in read_here or k.startswith(_judged(name, left))}
    faults = {
        "lacks": [k for k in wanted if k not in given and not k.endswith(COUNTER)],
        "has unknown": [k for k in given if k not in wanted],
        "has misshapen": [f"{k} {_text(t)} for {_text(wanted[k])}" for k, t in given.items() if _differ(t, wanted.get(k))],
    }
    if any(faults.values()):
        found = told(every)
        if found and found != name:
            hint = f"these are {found} weights"
            if found in OFFERED and setting.endswith(SETTING):
                hint += f": set {setting.removesuffix(SETTING)}{OTHER}={found}"
        else:
            hint = f"it must hold the tensors of {name} under torchvision's names"
        summary = "; ".join(f"{what} {_few(names)}" for what, names in faults.items() if names)
        raise ConfigError(f"not the weights of {name}: {summary}", where=where, hint=hint)
    broken = [k for k, t in given.items() if not bool(t.isfinite().all())]
    if broken:
        raise ConfigError(f"weights of {name} hold NaN or infinity in {_few(broken)}", where=where, hint="get the file again")
    network.load_state_dict(read_here, strict=False)  # what could be missing now are counters


def read(path: Path | str, *, setting: str) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises ConfigError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    if not path.is_file():
        raise ConfigError("no such file of weights", where=str(path), hint=f"check {setting}")
    try:
        given = load_file(path) if path.suffix == ".safetensors" else plain(path)
    except (SafetensorError, CheckpointError, OSError, ValueError) as error:
        hint = "give a .safetensors file, or a state dict that torch.save wrote"
        reason = error.what if isinstance(error, CheckpointError) else type(error).__name__
        raise ConfigError(f"weights cannot be read: {reason}", where=str(path), hint=hint) from None
    if not isinstance(given, Mapping) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in given.items()):
        hint = "save the tensors by name, without anything around them"
        raise ConfigError("weights are no state dict", where=str(path), hint=hint)
    return dict(given)


# What is known of other architectures, to say which one a file holds

SETTING, OTHER = "backbone.weights", "backbone.name"
OFFERED = ("resnet18", "resnet50", "wide_resnet50_2", "densenet169")
HEADS = ("fc.", "classifier.")


class _WholeVGG16(VGG16):
    """With the four convolutions above relu4_2."""

    def __init__(self) -> None:
        super().__init__()
        for n in (21, 24, 26, 28):
            self.features.add_module(str(n), nn.Conv2d(512, 512, 3))


KNOWN: Mapping[str, Callable[[], nn.Module]] = {
    **{name: (lambda name=name: ResNet(name)) for name in RESNETS},  # type: ignore[misc]
    **{name: (lambda name=name: DenseNet(name)) for name in DENSENETS},  # type: ignore[misc]
    "vgg16": _WholeVGG16,
}


def told(given: Mapping[str, Tensor]) -> str:
    """The public architecture whose trunk has exactly these names and shapes; "" if we know none."""
    trunk = _trunk(given)
    return next((name for name in KNOWN if _known_trunk(name) == trunk), "")


@cache
def _public(name: str) -> Mapping[str, Tensor]:
    """All published tensors of an architecture, without their numbers."""
    with torch.device("meta"):
        return KNOWN[name]().state_dict()


@cache
def _known_trunk(name: str) -> Shapes:
    return _trunk(_public(name))


def _judged(name: str, left: tuple[str, ...]) -> tuple[str, ...]:
    """Those beginnings of ``left`` of which we know what belongs there."""
    return tuple(begin for begin in left if any(k.startswith(begin) for k in _public(name)))


def _beside(given: Mapping[str, Tensor], name: str, left: tuple[str, ...]) -> dict[str, Tensor]:
    """What a file of the architecture has to hold under ``left``, given that it holds some of it. Shapes and kinds only."""
    judged = _judged(name, left)
    head = tuple(begin for begin in judged if begin in HEADS)
    classes = next((len(v) for k, v in given.items() if k.startswith(head) and v.dim()), 0) if head else 0
    wanted = {}
    for part in (head, tuple(begin for begin in judged if begin not in HEADS)):
        if part and any(k.startswith(part) for k in given):
            for k, v in _public(name).items():
                if k.startswith(part):
                    shape = (classes, *v.shape[1:]) if part == head else v.shape
                    wanted[k] = torch.zeros((), dtype=v.dtype).expand(shape)
    return wanted


def _trunk(tensors: Mapping[str, Tensor]) -> Shapes:
    return {k: tuple(v.shape) for k, v in tensors.items() if not k.startswith(HEADS) and not k.endswith(COUNTER)}


def _differ(tensor: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and (tensor.shape != wanted.shape or _kind(tensor) != _kind(wanted))


def _kind(tensor: Tensor) -> str:
    """What the numbers are, where it matters: "" for ordinary ones with a fraction."""
    if tensor.is_meta or tensor.layout != torch.strided:
        return "meta " if tensor.is_meta else "sparse "
    return "" if tensor.dtype in FRACTIONS else f"{tensor.dtype} ".removeprefix("torch.")


def _text(tensor: Tensor) -> str:
    return _kind(tensor) + "x".join(map(str, tensor.shape))


def _few(names: list[str], most: int = 3) -> str:
    """'a', 'b', 'c' and 12 more."""
    rest = len(names) - most
    return ", ".join(f"'{n[:100]}'" for n in names[:most]) + (f" and {rest} more" if rest > 0 else "")
