"""A run folder from the weights of a published program: it predicts, evaluates and exports like a trained one.

What no file brought stays as initialised; the card, ``imported.json`` and the notes of ``manifest.json`` say which networks
those are. There is no state to go on from: such a run cannot be resumed, only trained anew from its ``experiment.json``.
"""

from __future__ import annotations

import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ..config import override, to_plain
from ..data.preprocess import Preprocessing
from ..errors import CheckpointError, ConfigError
from ..experiment import Experiment
from ..io.atomic import write_json
from ..io.damage import ARCHIVE
from ..io.hashing import sha256_file
from ..methods import get, published, weights
from ..methods.base import Method
from ..methods.published import Program, Role, Sizes, State
from ..types import DISEASED, HEALTHY, Domains, Spec
from . import checkpoint
from .folder import judge
from .manifest import git_revision, machine, versions

SEED = 0  # of the networks that no file brought


def import_run(
    base: Experiment,
    files: Mapping[Role, Path],
    out: Path,
    *,
    settings: Sequence[str] = (),
    size: int | None = None,
    domains: Sequence[str] = (),
    attributes: Sequence[str] = (),
) -> Path:
    """Writes the run folder ``out``, new or empty, of weights that a published program saved.

    Args:
        base: the method's settings; what the files tell replaces them, ``settings`` ("path=value") changes the rest.
        files: by role; ``healmap.methods.published`` says which roles a program has.
        size: side in pixels, where no file tells it.
        domains: names of the classes, healthy first. attributes: names of label planes that may be on together.

    Raises:
        CheckpointError: a file is missing, damaged, of another network, or more than plain tensors. Nothing is written then.
        ConfigError: a setting is missing, or contradicts the files.
        UsageError: the folder is not empty.
    """
    judge(out, resume=False)
    program = published.get(base.method_name)
    for role in files:
        if role not in program.networks:
            known = ", ".join(program.networks)
            raise ConfigError(f"{base.method_name} has no {role}", where=f"--{role}", hint=f"it has: {known}")
    states = {role: _read(path, program, base.method_name, role) for role, path in files.items()}
    sizes = program.sizes(states)
    named = _domains(sizes, domains, attributes)
    experiment = _settled(base, program, sizes, states, named, settings, size)
    side = experiment.data.size
    method = _built(experiment, Spec(sizes.channels, side, side, named), program, states)
    record = _record(base.method_name, program, sizes, states, files)
    _write(experiment, method, out, record, _notes(program, sizes, record, side))
    return out


# Files


def _read(path: Path, program: Program, name: str, role: Role) -> State:
    where = str(path)
    if not path.is_file():
        raise CheckpointError("no such file", where=where, hint=f"{name} saves its {role} as {program.networks[role].saved_as}")
    if zipfile.is_zipfile(path) and not _stored(path):
        raise CheckpointError("the file is damaged, or compressed inside, as torch.save never does", where=where)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's about odd files; what is odd is refused in one line
            plain = checkpoint.plain(path)
    except CheckpointError:
        what = "the file is damaged, no torch.save file, or holds more than tensors, such as code"
        raise CheckpointError(what, where=where, hint="save net.state_dict() alone") from None
    state = published.state_of(plain, name, role, where)
    if checkpoint.size_of(dict(state.tensors)) > path.stat().st_size:
        raise CheckpointError("the tensors claim more numbers than the file holds", where=where)
    return state


def _stored(path: Path) -> bool:
    """Whether nothing in the archive is compressed: torch.load would unpack whatever size a few bytes claim."""
    try:
        with zipfile.ZipFile(path) as archive:
            return all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
    except ARCHIVE:
        return False


# Settings


def _domains(sizes: Sizes, domains: Sequence[str], attributes: Sequence[str]) -> Domains:
    """Classes or attributes, as many as the generator has label planes; one plane tells two classes apart."""
    if domains and attributes:
        raise ConfigError("domains and attributes exclude each other", hint="domains: an image has one; attributes: any number")
    names, count = tuple(attributes or domains), sizes.planes if attributes else max(2, sizes.planes)
    option = "--attributes" if attributes else "--domains"
    if not names and count == 2:
        return Domains()
    if not names:
        hint = "give --domains (an image has one, healthy first) or --attributes (any number), in the program's order"
        raise ConfigError(f"the generator has {count} label planes without names", hint=hint)
    if len(names) != count or len(set(names)) < count:
        takes = f"the generator has {sizes.planes} label planes" if sizes.planes else "this program knows two domains"
        raise ConfigError(f"{takes}, the names are {', '.join(names)}", where=option, hint=f"give {count} different names")
    return Domains(names, exclusive=not attributes)


def _settled(
    base: Experiment,
    program: Program,
    sizes: Sizes,
    states: Mapping[Role, State],
    domains: Domains,
    settings: Sequence[str],
    size: int | None,
) -> Experiment:
    """The experiment of the run: the base, what program and files say, the user's changes to the rest."""
    side = size or sizes.size
    if side is None:
        hint = f"give --size; published: {program.usual}" + ("" if "critic" in states else ". --critic may tell it")
        raise ConfigError("the files do not tell the image size", where="--size", hint=hint)
    if sizes.channels not in (1, 3):
        what = f"the generator is for images of {sizes.channels} channels, healmap's have 1 or 3"
        raise CheckpointError(what, where=states["generator"].where, hint="is it of this program?")
    given = {f"method.{name}": value for name, value in sizes.settings.items()}
    given |= {"data.size": side, "data.channels": sizes.channels}
    method, data = dict(sizes.settings), {**program.data, "size": side, "channels": sizes.channels}
    if "critic" not in states:
        method |= program.uncritical
    if sizes.planes:
        method["encoding"] = given["method.encoding"] = _encoding(sizes, domains)
    if not domains.exclusive:
        data |= {"domain_column": "attributes", "attributes": domains.names}
    elif domains.names[0] != HEALTHY:
        data |= {"domain_column": "folder", "domains": domains.names}
    elif domains.names != (HEALTHY, DISEASED):
        data["domain_column"] = "class"
    started = replace(base, method=replace(base.method, **method), data=replace(base.data, **data), recipe="")
    experiment = override(started, settings)
    for path, value in given.items():
        group, _, name = path.partition(".")
        asked = getattr(getattr(experiment, group), name)
        if asked != value:
            raise ConfigError(f"{path}={asked} contradicts the files, which say {value}", where="--set", hint="leave it out")
    for name in program.uncritical if "critic" not in states else ():
        asked = getattr(experiment.method, name)
        if asked == getattr(base.method, name):
            raise ConfigError(f"method.{name}={asked} needs the critic's weights", where="--set", hint="give --critic FILE")
    if experiment.data.normalisation == "zscore":
        hint = "use window, percentile or foreground-median"
        raise ConfigError("zscore is fitted on training images, and an import has none", where="--set", hint=hint)
    return experiment


def _encoding(sizes: Sizes, domains: Domains) -> str:
    if not domains.exclusive:
        return "multi-hot"
    return "binary" if sizes.planes == 1 else "one-hot"


# The method


def _built(experiment: Experiment, spec: Spec, program: Program, states: Mapping[Role, State]) -> Method:
    """The method with the files' tensors. It is built without memory first: shapes in a file may be anything."""
    cls = get(experiment.method_name)
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            blank = cls(experiment.method, spec)
    except (RuntimeError, TypeError, OverflowError) as error:
        where = states["generator"].where
        raise CheckpointError(f"no network has such sizes: {type(error).__name__}", where=where) from None
    attributes = {role: program.networks[role].attribute for role in states}
    tensors = {role: published.fitting(getattr(blank, attributes[role]), state) for role, state in states.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        method = cls(experiment.method, spec)
    for role, attribute in attributes.items():
        getattr(method, attribute).load_state_dict(tensors[role])
    return method.eval()


# The folder


def _record(
    name: str, program: Program, sizes: Sizes, states: Mapping[Role, State], files: Mapping[Role, Path]
) -> dict[str, Any]:
    """What came from where. Names of files without their folders: records travel."""
    return {
        "program": name,
        "files": {
            role: {
                "name": path.name,
                "sha256": sha256_file(path),
                "network": program.networks[role].attribute,
                "tensors": len(states[role].tensors),
            }
            for role, path in files.items()
        },
        "read": to_plain(sizes),
        "untrained": [network.attribute for role, network in program.networks.items() if role not in files],
        "seed": SEED,
    }


def _notes(program: Program, sizes: Sizes, record: Mapping[str, Any], side: int) -> list[str]:
    names = ", ".join(file["name"] for file in record["files"].values())
    shapes = [f"{sizes.channels} channel{'s' * (sizes.channels > 1)}", f"{sizes.planes} label planes" if sizes.planes else ""]
    shapes += [f"{name} {value}" for name, value in sizes.settings.items()]
    notes = [
        f"weights imported from {names} of {record['program']}: data and settings of their training are not known",
        f"as their shapes tell: {', '.join(filter(None, shapes))}; working size {side} px",
    ]
    if record["untrained"]:
        left = ", ".join(record["untrained"])
        notes.append(f"untrained, because no file was given: {left}, as initialised with seed {SEED}")
        if "critic" not in record["files"]:
            notes += [f"without the critic {name} is {value}" for name, value in program.uncritical.items()]
    if program.channels and sizes.channels != program.channels:
        takes = f"the published program takes images of {program.channels} channels, this file of {sizes.channels}"
        notes.append(f"{takes}: make sure that it is of {record['program']}")
    return notes


def _write(experiment: Experiment, method: Method, out: Path, record: Mapping[str, Any], notes: Sequence[str]) -> None:
    """Manifest last, so that a folder with one is complete."""
    card = {
        "recipe": "", "step": 0, "averaged": False, "chosen": "imported", "figures": {},
        "preprocessing": Preprocessing(experiment.data).to_plain(), "data": to_plain(experiment.data),
        "detection": to_plain(experiment.detection), "train_fingerprint": "", "precision": "32", "versions": versions(),
        "imported": record,
    }  # fmt: skip
    for name in ("last", "best"):
        weights.save(method, out / "weights" / f"{name}.safetensors", {"name": name, **card})
    write_json(out / "experiment.json", to_plain(experiment))
    write_json(out / "imported.json", record)
    write_json(out / "manifest.json", {
        "run": experiment.method_name, "imported": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": versions(), "machine": machine(), "git": git_revision(), "notes": notes,
    })  # fmt: skip
