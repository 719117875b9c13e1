"""A trained method as two files: ``NAME.safetensors`` (tensors, nothing else) and ``NAME.json``, its card.

Both may come from strangers. Nothing in them names a file, a module or a class to import: the method is looked up in the fixed
table of :mod:`healmap.methods`, and the file's size, hash, tensor names, shapes, types and values are checked before use.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..config import from_plain, to_plain
from ..errors import CapabilityError, CheckpointError, ConfigError
from ..io.atomic import replacing, write_json
from ..io.hashing import sha256_file
from ..types import Spec
from . import METHODS, get

if TYPE_CHECKING:
    from .base import Method

FORMAT, VERSION = "healmap-weights", 1
CARD_LIMIT, HEADER_LIMIT = 16 * 2**20, 16 * 2**20  # bytes; real cards and headers hold some kilobytes
KINDS = {  # in the order in which the safetensors package writes them
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
RESERVED = ("format", "version", "method", "config", "spec", "sha256", "previous_sha256")


def card_path(path: Path) -> Path:
    return path.with_suffix(".json")


def save(method: Method, path: Path | str, card: Mapping[str, Any], *, tensors: Mapping[str, Tensor] | None = None) -> Path:
    """Writes the method's weights and card.

    Args:
        path: ends in ``.safetensors``; the card is written beside it.
        card: further plain facts (preprocessing, step, figures); format, method, config, spec and hash are added.
        tensors: replace the method's own by state-dict name (averaged weights).

    Raises:
        WriteError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    name = name_of(method)
    state = kept(method)
    state |= {k: v.to(state[k].dtype) for k, v in (tensors or {}).items()}
    with replacing(path) as temporary:
        digest = _write(temporary, state)
        described = {
            "format": FORMAT, "version": VERSION, "method": name, "config": to_plain(method.config),
            "spec": to_plain(method.spec), "sha256": digest,
            # Card and weights cannot be replaced in one act: a new card also accepts the weights it is about to succeed.
            "previous_sha256": sha256_file(path) if path.is_file() else None,
            **{k: v for k, v in card.items() if k not in RESERVED},
        }  # fmt: skip
        write_json(card_path(path), described)
    return path


def _write(path: Path, state: Mapping[str, Tensor]) -> str:
    """A safetensors file, byte for byte as the package writes it, and its SHA-256.

    Straight from the tensors' own memory where their layout allows it: a state may take half of the machine's, and the
    package's writers need room for one or two more, or leave files of their own when they are killed.
    """
    kinds = {dtype: kind for kind, dtype in KINDS.items()}
    order = sorted(state, key=lambda name: ([*kinds].index(state[name].dtype), name))
    header, end = {}, 0
    for name in order:
        tensor, begin, end = state[name], end, end + state[name].nbytes
        header[name] = {"dtype": kinds[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for data in chain((len(text).to_bytes(8, "little"), text), (_bytes(state[name]) for name in order)):
            digest.update(data)
            file.write(data)
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def kept(method: Method) -> dict[str, Tensor]:
    """The tensors that a weights file holds: the state dict without what only training needs."""
    left = tuple(f"{name}." for name in method.training_only)
    return {k: v for k, v in method.state_dict().items() if isinstance(v, Tensor) and not k.startswith(left)}


def name_of(method: Method) -> str:
    """The method's name in the table of methods. Raises CapabilityError for a class that is not in it."""
    module, cls = type(method).__module__.rpartition(".")[2], type(method).__name__
    for name, entry in METHODS.items():
        if entry == (module, cls):
            return name
    raise CapabilityError(
        f"{cls} is not in the table of methods",
        where="healmap/methods/__init__.py",
        hint="add a line there, or save method.state_dict() yourself",
    )


def load(path: Path | str, device: str | torch.device = "cpu") -> tuple[Method, dict[str, Any]]:
    """The method of a weights file, in ``eval()`` on ``device``, and its card.

    Raises:
        CheckpointError: a file is missing, damaged, foreign, or does not fit the settings on the card.
    """
    path = Path(path)
    card = read_card(path)
    if not path.is_file():
        raise CheckpointError("weights are missing", where=str(path), hint="train first, or check the path")
    if sha256_file(path) not in (card["sha256"], card["previous_sha256"]):
        raise CheckpointError("weights are damaged: their SHA-256 is not the card's", where=str(path), hint="copy them again")
    shapes = _shapes(path)
    method = _build(card, shapes, path)
    _compare(method, shapes, path)
    _fill(method, path)
    return method.to(device).eval(), card


def read_card(path: Path | str) -> dict[str, Any]:
    """The card beside a weights file, its form checked. Raises CheckpointError."""
    where = card_path(Path(path))
    try:
        if not where.is_file():
            raise CheckpointError("the weights' card is missing", where=str(where), hint="it lies beside the weights file")
        if where.stat().st_size > CARD_LIMIT:
            raise CheckpointError("the weights' card is too large", where=str(where))
        card = json.loads(where.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the weights' card cannot be read: {type(error).__name__}", where=str(where)) from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise CheckpointError("not a card of healmap weights", where=str(where))
    if card.get("version") != VERSION:
        raise CheckpointError(
            f"card of version {card.get('version')!r}, this healmap reads {VERSION}",
            where=str(where),
            hint="use the healmap that wrote it",
        )
    kinds = {"method": str, "config": dict, "spec": dict, "sha256": str, "previous_sha256": str | None}
    for key, kind in kinds.items():
        if not isinstance(card.setdefault(key, None), kind):
            raise CheckpointError(f"the card's '{key}' has the wrong form", where=str(where))
    return card


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    """Names, shapes and types as the file's header tells them; the reader checks that they fill the file without overlap."""
    from safetensors import SafetensorError, safe_open

    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(HEADER_LIMIT, path.stat().st_size):
        raise CheckpointError("weights have an impossible header", where=str(path))
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            return {name: (tuple(s.get_shape()), KINDS[s.get_dtype()]) for name, s in slices.items()}
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointError(f"weights cannot be read: {type(error).__name__}", where=str(path)) from None


def _build(card: Mapping[str, Any], shapes: Mapping[str, Any], path: Path) -> Method:
    """The card's method with fresh weights. It is built without memory first: a card may ask for more than the file holds."""
    where = str(card_path(path))
    try:
        cls = get(card["method"])
        config: Any = from_plain(cls.Config, card["config"], where=where)
        spec = from_plain(Spec, card["spec"], where=where)
        # Building draws random numbers; a reader must not disturb the caller's.
        with torch.random.fork_rng(devices=[]):
            with torch.device("meta"), _at_most(len(shapes)):
                _compare(cls(config, spec), shapes, path)
            return cls(config, spec)
    except CheckpointError:
        raise
    except ConfigError as error:
        raise CheckpointError(f"the card's settings do not work: {error}", where=where) from None
    except (RuntimeError, TypeError, ValueError, OverflowError, ArithmeticError, MemoryError) as error:
        raise CheckpointError(f"the card's settings cannot be built: {type(error).__name__}", where=where) from None


@contextmanager
def _at_most(tensors: int) -> Iterator[None]:
    """Stops a construction that registers far more parameters than the weights file has tensors."""
    count = 0

    def counted(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal count
        count += 1
        if count > 2 * tensors + 100:
            raise CheckpointError("the card describes a larger network than the weights hold")

    handle = nn.modules.module.register_module_parameter_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


def _compare(method: Method, shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]], path: Path) -> None:
    wanted = {k: (tuple(v.shape), v.dtype) for k, v in kept(method).items()}
    for name in sorted(set(wanted) ^ set(shapes)):
        what = "lack" if name in wanted else "have an unknown"
        raise CheckpointError(f"weights {what} tensor '{name}'", where=str(path), hint="the card belongs to other weights")
    for name, (shape, dtype) in wanted.items():
        if shapes[name] != (shape, dtype):
            raise CheckpointError(f"tensor '{name}' is {shapes[name]}, the card asks for {(shape, dtype)}", where=str(path))


def _fill(method: Method, path: Path) -> None:
    from safetensors.torch import load_file

    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"tensor '{name}' holds NaN or infinity", where=str(path), hint="train again")
    method.load_state_dict(tensors, strict=not method.training_only)  # names and shapes are compared already
