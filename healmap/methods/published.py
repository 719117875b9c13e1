"""Weights of the published programs: which files they save, and which of our networks each fills.

Our networks bear the tensor names of the published ones, in their order, so a state dict goes in as it is; how large a network
was, its shapes tell. The programs' generators never leave training mode: their statistics at inference are those of the image,
as ours always are, and running statistics in a file are left out where our norm layers keep none.

Files may come from strangers: names, shapes, types and values are checked before use, and nothing is built before its shapes
are compared.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError
from ..networks.norm import InstanceNorm

Role = Literal["generator", "critic", "reverse", "reverse-critic"]
PREFIXES = ("module.", "_orig_mod.")  # of torch's DataParallel and of its compiler
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
NORMS = (InstanceNorm,)


@dataclass(frozen=True)
class Network:
    attribute: str  # of our method
    mark: str  # a tensor that it has and the program's other networks have not
    saved_as: str  # the program's name for the file


@dataclass(frozen=True)
class State:
    """A state dict as read. where: its file, for messages."""

    where: str
    tensors: Mapping[str, Tensor]

    def conv(self, name: str) -> tuple[int, int, int, int]:
        """Shape of a convolution's weight, no axis empty. Raises CheckpointError."""
        shape = tuple(self.tensors[name].shape) if name in self.tensors else None
        if shape is None:
            raise CheckpointError(f"tensor {_quoted([name])} is missing", where=self.where, hint="another architecture?")
        if len(shape) != 4 or not all(shape):
            raise CheckpointError(f"tensor {_quoted([name])} has shape {shape}: no convolution's", where=self.where)
        return shape

    def count(self, pattern: str) -> int:
        return sum(re.fullmatch(pattern, name) is not None for name in self.tensors)


@dataclass(frozen=True)
class Sizes:
    """What the shapes tell. settings: of the method. planes: the generator's label planes. size: side in pixels, or unknown."""

    settings: Mapping[str, Any]
    channels: int
    planes: int = 0
    size: int | None = None


@dataclass(frozen=True)
class Program:
    """One published program.

    networks: by role. "generator" must be given; what else is missing stays as initialised.
    sizes: reads them from the states given. data: how the program prepares its images, as data settings.
    channels: of the images that the released program takes; None: any. usual: sides in pixels it was used with.
    uncritical: settings while the critic's file is missing.
    """

    networks: Mapping[Role, Network]
    sizes: Callable[[Mapping[Role, State]], Sizes]
    data: Mapping[str, Any]
    channels: int | None
    usual: str
    uncritical: Mapping[str, Any] = field(default_factory=dict)


def get(name: str) -> Program:
    """The program of that name. Raises ConfigError naming the nearest one."""
    if name not in PROGRAMS:
        near = difflib.get_close_matches(name, PROGRAMS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(PROGRAMS)}"
        raise ConfigError(f"no published program '{name}' is known", hint=hint)
    return PROGRAMS[name]


# From what torch.load gives to the state dict of one network


def state_of(plain: Any, program: str, role: Role, where: str) -> State:
    """The network of that role in a file: a state dict, or the one of several in a dictionary that is meant.

    Raises:
        CheckpointError: there is none, or more than one.
    """
    held = [_without_prefix(state) for state in _states(plain)]
    network = get(program).networks[role]
    found = [state for state in held if network.mark in state]
    if len(found) == 1:
        return State(where, found[0])
    if found:
        what = f"the file holds {len(found)} networks that may be the {role}"
        raise CheckpointError(what, where=where, hint="save the one by itself")
    if not held:
        raise CheckpointError("the file holds no state dict", where=where, hint="save net.state_dict()")
    what = f"no {role} of {program}: tensor '{network.mark}' is missing"
    raise CheckpointError(what, where=where, hint=_looks_like(held))


def _states(plain: Any) -> Iterator[Mapping[str, Tensor]]:
    """All state dicts in nested dictionaries, each once; what is none of a network (optimisers) has no network's mark."""
    waiting, seen = [plain], set()
    while waiting:
        value = waiting.pop()
        if not isinstance(value, Mapping) or id(value) in seen:
            continue
        seen.add(id(value))
        if value and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
            yield value
        else:
            waiting.extend(value.values())


def _without_prefix(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _looks_like(held: Iterable[Mapping[str, Tensor]]) -> str:
    names = {name for state in held for name in state}
    kinds: dict[str, list[str]] = {}
    for program, entry in PROGRAMS.items():
        for role in ("generator", "critic"):
            if entry.networks[role].mark in names:
                kinds.setdefault(role, []).append(program)
    if not kinds:
        return f"it holds {_quoted(sorted(names))}"
    return "it looks like " + " and ".join(f"a {role} of {' or '.join(programs)}" for role, programs in kinds.items())


# From a state dict into a network


def fitting(network: nn.Module, state: State) -> dict[str, Tensor]:
    """The tensors for ``network``, which may lie on the meta device, in its types. Running statistics that its norm layers lack
    are left out.

    Raises:
        CheckpointError: naming tensors that are missing, unknown, of another shape, or no sound numbers.
    """
    ours = network.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in ours.items()}
    norms = {name for name, part in network.named_modules() if isinstance(part, NORMS)}
    given = {k: v for k, v in state.tensors.items() if k in wanted or not _statistic_of(k, norms)}
    faults = []
    for what, names in (("missing", wanted.keys() - given.keys()), ("unknown", given.keys() - wanted.keys())):
        if names:
            faults.append(f"{what}: {_quoted(sorted(names, key=[*wanted, *given].index))}")
    differ = [k for k in wanted if k in given and tuple(given[k].shape) != wanted[k]]
    if differ:
        first = f"{tuple(given[differ[0]].shape)}, not {wanted[differ[0]]}"
        faults.append(f"of another shape: {_quoted(differ)} ({first})")
    if faults:
        what = "the tensors are not this network's; " + "; ".join(faults)
        raise CheckpointError(what, where=state.where, hint="another architecture, or another image size?")
    return {name: _sound(name, given[name], ours[name].dtype, state.where) for name in wanted}


def _statistic_of(name: str, norms: set[str]) -> bool:
    layer, _, last = name.rpartition(".")
    return last in STATISTICS and layer in norms


def _sound(name: str, tensor: Tensor, dtype: torch.dtype, where: str) -> Tensor:
    if type(tensor) not in (Tensor, nn.Parameter) or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise CheckpointError(f"tensor '{name}' is no ordinary tensor", where=where)
    if tensor.is_floating_point() != dtype.is_floating_point or tensor.is_complex():
        raise CheckpointError(f"tensor '{name}' holds {tensor.dtype}, the network's is {dtype}", where=where)
    tensor = tensor.detach().to(dtype)
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(f"tensor '{name}' holds NaN or infinity", where=where, hint="that training had failed")
    return tensor


def _quoted(names: Iterable[str], most: int = 3) -> str:
    names = list(names)
    shown = ", ".join(f"'{n if len(n) <= 60 else n[:57] + '...'}'" for n in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


# What the shapes tell, program by program


def _stargan_generator(state: State) -> tuple[dict[str, int], int, int]:
    """Settings, channels in (image and planes) and channels out."""
    first, blocks = state.conv("main.0.weight"), state.count(r"main\.\d+\.main\.0\.weight")
    last = state.conv(f"main.{15 + blocks}.weight")
    return {"width": first[0], "blocks": blocks}, first[1], last[0]


def _stargan_critic(states: Mapping[Role, State]) -> dict[str, int]:
    if "critic" not in states:
        return {}
    critic = states["critic"]
    return {"critic_width": critic.conv("main.0.weight")[0], "critic_layers": critic.count(r"main\.\d+\.weight")}


def _conditional(states: Mapping[Role, State]) -> Sizes:
    """StarGAN and Fixed-Point GAN: label planes beside the image; the critic's class head sees the whole of it."""
    settings, into, out = _stargan_generator(states["generator"])
    if into <= out:
        what = f"the generator takes {into} channels and gives {out}: none are left for label planes"
        raise CheckpointError(what, where=states["generator"].where, hint="healthygan and brainomaly have none")
    critic = _stargan_critic(states)
    size = states["critic"].conv("conv2.weight")[2] << critic["critic_layers"] if critic else None
    return Sizes({**settings, **critic}, out, into - out, size)


def _two_sets(states: Mapping[Role, State]) -> Sizes:
    """HealthyGAN and Brainomaly: the image alone; a critic without class head fits any size."""
    settings, into, _ = _stargan_generator(states["generator"])
    return Sizes({**settings, **_stargan_critic(states)}, into)


def _descargan(states: Mapping[Role, State]) -> Sizes:
    """Two label planes beside the image. The published discriminator takes 256 px and nothing else."""
    width, into, _, _ = states["generator"].conv("down0.0.0.weight")
    settings, size = {"width": width}, 256
    if "critic" in states:
        critic = states["critic"]
        settings["critic_width"] = critic.conv("encoder.0.0.weight")[0]
        head = critic.tensors.get("linearclass.1.weight")  # (64, 16 * width * places), a place for 64 x 64 pixels
        if head is not None and head.ndim == 2:
            size = 64 * math.isqrt(head.shape[1] // (16 * settings["critic_width"]))
    return Sizes(settings, into - 2, size=size)


def _cyclegan(states: Mapping[Role, State]) -> Sizes:
    generator = states["generator"]
    width, channels, _, _ = generator.conv("model.1.weight")
    settings = {"width": width, "blocks": generator.count(r"model\.\d+\.conv_block\.1\.weight")}
    for role in ("critic", "reverse-critic"):
        if role in states:
            critic = states[role]
            # Besides the halvings there is one layer more, and the one that gives the map.
            layers = critic.count(r"model\.\d+\.weight") - 2
            settings |= {"critic_width": critic.conv("model.0.weight")[0], "critic_layers": layers}
            break
    return Sizes(settings, channels)


def _family(sizes: Callable[[Mapping[Role, State]], Sizes], usual: str) -> Program:
    return Program(
        networks={
            # Blocks are at 9 and after: a critic's trunk has convolutions at even places only.
            "generator": Network("G", "main.9.main.0.weight", "…-G.ckpt"),
            "critic": Network("D", "conv1.weight", "…-D.ckpt"),
        },
        sizes=sizes,
        data={**EIGHT_BIT, "fit": "crop"},  # cards, preprocessing: centre crop, then resize
        channels=3,  # cards: grey images are read as RGB
        usual=usual,
    )


EIGHT_BIT = {"normalisation": "window", "window": (0.0, 255.0)}  # cards: 8-bit images, mean and deviation 0.5

PROGRAMS: dict[str, Program] = {
    "stargan": _family(_conditional, "128"),
    "fixed-point-gan": _family(_conditional, "256 for BRATS, else 128"),
    "healthygan": _family(_two_sets, "256 or 128"),
    "brainomaly": _family(_two_sets, "192"),
    "descargan": Program(
        networks={
            "generator": Network("G", "down0.0.0.weight", "netG_synthetic.pt"),
            "critic": Network("D", "encoder.0.0.weight", "netD_synthetic.pt"),
        },
        sizes=_descargan,
        data={"normalisation": "percentile", "percentiles": (0.0, 100.0)},  # card, section 3: each image's range to [-1, 1]
        channels=1,
        usual="256",
        uncritical={"score": "map-mean"},  # the classifier is part of the discriminator
    ),
    "cyclegan": Program(
        networks={
            "generator": Network("to_healthy", "model.10.conv_block.1.weight", "latest_net_G_A.pth"),
            "critic": Network("critic_healthy", "model.0.weight", "latest_net_D_A.pth"),
            "reverse": Network("to_diseased", "model.10.conv_block.1.weight", "latest_net_G_B.pth"),
            "reverse-critic": Network("critic_diseased", "model.0.weight", "latest_net_D_B.pth"),
        },
        sizes=_cyclegan,
        data={**EIGHT_BIT, "fit": "stretch"},  # card, section 3: resized whatever the shape
        channels=None,
        usual="256 or 128",
    ),
}
