"""The run folder: what may lie in it before a run starts, and what must be the same when one goes on."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from . import checkpoint

# Settings that change no number of a run.
FREE = (
    "recipe",
    "training.tensorboard",
    "training.save_every",
    "data.workers",
    "data.allow_leak",
    "training.device",
    "training.threads",
)
OWN = ("experiment.json", "manifest.json", "log.csv", "timing.csv", "samples", "weights", "tensorboard")


def judge(out: Path, *, resume: bool) -> None:
    """Whether a run may begin, or go on, in this folder.

    Raises:
        UsageError: it holds something, and nothing is to be resumed.
    """
    if out.exists() and not out.is_dir():
        raise UsageError("the run folder is a file", where=str(out), hint="name another folder")
    there = sorted(p.name for p in out.iterdir() if not p.name.startswith(".")) if out.exists() else []
    if not there or (resume and checkpoint.exists(out)):
        return
    if not resume:
        hint = "add --resume to go on with it, or name a new folder" if checkpoint.exists(out) else "name a new folder"
        raise UsageError(f"the run folder is not empty: it holds {there[0]}", where=str(out), hint=hint)
    foreign = [name for name in there if name not in OWN]
    if foreign:
        raise UsageError(f"nothing to resume: there is {foreign[0]}, but no state.pt", where=str(out), hint="check the path")


def compare(state: Mapping[str, Any], settings: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Refuses to go on with other settings or data.

    Raises:
        UsageError: naming what differs.
    """
    saved = dict(flat(json.loads(state["settings"])))
    wanted = dict(flat(settings))
    differ = [
        f"{k}: {saved.get(k)!r} then, {wanted.get(k)!r} now"
        for k in sorted({*saved, *wanted})
        if saved.get(k) != wanted.get(k) and k not in FREE
    ]
    differ += [f"{name} data" for name in data if data[name] != state["data"].get(name)]
    if differ:
        length = any(text.partition(":")[0] in ("method.steps", "training.minutes") for text in differ)
        why = " (the learning rates depend on the length of the run)" if length else ""
        raise UsageError(
            "this run was begun otherwise: " + "; ".join(differ[:20]) + why,
            hint="resume with the same settings and data, or start a new run",
        )


def warn_of_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences of versions, threads and device: the run goes on, but bit-identity is no longer promised."""
    saved, present = dict(flat(then)), dict(flat(now))
    differ = [
        f"{k} {saved.get(k)} then, {present.get(k)} now" for k in sorted({*saved, *present}) if saved.get(k) != present.get(k)
    ]
    if differ:
        warnings.warn(
            f"resumed under other conditions ({'; '.join(differ)}): the result may differ in the last bits from an "
            "uninterrupted run",
            RuntimeWarning,
            stacklevel=2,
        )
    return differ


def flat(plain: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested dictionaries by their paths: ("method.lr", 0.001)."""
    if isinstance(plain, Mapping) and plain:
        for key, value in plain.items():
            yield from flat(value, f"{name}.{key}".strip("."))
    else:
        yield name, plain
