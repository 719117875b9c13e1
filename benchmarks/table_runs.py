"""What the tables of many trained methods share: small recipes, data, and training that goes on where it was stopped."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from healmap import recipes
from healmap.api import experiment_for, with_splits
from healmap.config import to_plain
from healmap.data.dataset import open_dataset
from healmap.errors import ConfigError, HealError
from healmap.recipes.saved import load_experiment
from healmap.training.folder import FREE, flat

HEALMAP = (sys.executable, "-m", "healmap")
# Settings in which a run may differ and still stand in the table. Threads change what is learned in a given time.
UNIMPORTANT = frozenset(FREE) - {"recipe", "training.threads"}


def small_recipe(name: str) -> str:
    """The small recipe of a method, where it has one."""
    return f"{name}-small" if f"{name}-small" in recipes.names() else name


def make_phantoms(folder: Path, seed: int) -> None:
    """60 patients at 64 px with twins, unless they are there."""
    if not (folder / "labels.csv").is_file():
        counts = ["--patients", "60", "--size", "64"]
        subprocess.run([*HEALMAP, "data", "make", "phantoms", str(folder), *counts, "--seed", str(seed), "--pairs"], check=True)


@dataclass(frozen=True)
class Training:
    """How every method of a table is trained: so long, with so many threads."""

    minutes: float
    threads: int = 1
    seed: int = 0
    size: int = 64

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}

    def command(self, recipe: str, data: Path, run: Path, settings: Sequence[str] = ()) -> list[str]:
        words = [*HEALMAP, "train", recipe, "--data", str(data), "--out", str(run), "--size", str(self.size)]
        words += ["--minutes", str(self.minutes), "--seed", str(self.seed), "--quiet", "--set", *settings]
        return [*words, f"training.threads={self.threads}", "--resume"]

    def run(self, recipe: str, data: Path, run: Path, settings: Sequence[str] = ()) -> str:
        """Trains, or goes on; returns what went wrong, or nothing. A run that is finished is left alone."""
        if finished(run):
            return ""
        reason = last_words(self.command(recipe, data, run, settings), self.environment)
        return reason or ("" if finished(run) else "its manifest does not say that it is finished")

    def differences(self, recipe: str, run: Path, settings: Sequence[str] = ()) -> list[str]:
        """In what a run that was begun or finished differs, by its own record, from one that would be trained now."""
        file = run / "experiment.json"
        if not file.is_file() and not finished(run):
            return []
        try:
            words = [*settings, f"training.threads={self.threads}"]
            asked = experiment_for(recipe, settings=words, minutes=self.minutes, size=self.size, seed=self.seed)
            now, then = (dict(flat(to_plain(e))) for e in (asked, load_experiment(file)))
        except ConfigError as error:
            return [str(error)]
        if self.threads:  # those of its first sitting; the settings are those of its last
            then["training.threads"] = manifest(run).get("threads", then["training.threads"])
        keys = [k for k in sorted({*now, *then}) if k not in UNIMPORTANT and now.get(k) != then.get(k)]
        return [f"{k} {_shown(then, k)} then, {_shown(now, k)} now" for k in keys]


def trained_on_others(data: Path, run: Path) -> list[str]:
    """What speaks against these being the images that a finished run was trained on; healmap itself looks before it goes on."""
    try:
        then = manifest(run)["data"]["train"]["fingerprint"]
    except (KeyError, TypeError):
        return []
    try:
        now = open_dataset(with_splits(data)[0], "train", load_experiment(run / "experiment.json").data).fingerprint
    except HealError as error:
        return [str(error)]
    return [] if now == then else [f"its training images are not those of {data}, or are stored otherwise by now"]


def refuse_others(training: Training, wanted: Iterable[tuple[str, Path, Path, Sequence[str]]]) -> None:
    """Ends the script if a run of (recipe, data, folder, settings) was trained otherwise than is asked for now."""
    for recipe, data, run, settings in wanted:
        found = training.differences(recipe, run, settings)
        if not found and finished(run):
            found = trained_on_others(data, run)
        if found:
            more = f" and {len(found) - 5} more" if len(found) > 5 else ""
            what = "ask for the same, name another WORK folder, or delete this run"
            sys.exit(f"{run} was trained otherwise: {'; '.join(found[:5])}{more}: {what}")


def manifest(run: Path) -> dict[str, Any]:
    """What a run records about itself; empty where it cannot be read."""
    try:
        found = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def finished(run: Path) -> dict[str, Any]:
    """A finished run's steps, seconds and figures; empty for any other."""
    found = manifest(run).get("finished")
    return found if isinstance(found, dict) else {}


def conditions(runs: Sequence[Path]) -> str:
    """How these finished runs were trained, in the words of their own records: minutes, threads, size, machine, dates."""
    plain = [json.loads((run / "experiment.json").read_text(encoding="utf-8")) for run in runs]
    told = [manifest(run) for run in runs]
    if not runs:
        return "no run"
    threads = _each(m.get("threads") for m in told)
    parts = [
        f"{_each(p['training']['minutes'] for p in plain)} minutes each",
        f"{threads} thread{'s' * (threads != '1')}",
        f"{_each(p['data']['size'] for p in plain)} px",
        _each(_machine(m) for m in told),
        " to ".join(dict.fromkeys((f(m["finished"].get("at", "?")[:10] for m in told)) for f in (min, max))),
    ]
    return ", ".join(parts)


def escaped(text: str) -> str:
    """Text for a cell or a line of a Markdown document, where it means nothing but itself."""
    return re.sub(r"([\\`*_\[\]<>|])", r"\\\1", " ".join(text.split()))


def last_words(command: Sequence[str], environment: Mapping[str, str], allowed: Sequence[int] = (0,)) -> str:
    """Runs a command; the last line of its errors if its exit code is none of ``allowed``, else nothing."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode in allowed else (done.stderr.strip().splitlines() or ["no message"])[-1]


def _shown(values: Mapping[str, Any], key: str) -> str:
    value = values.get(key, "absent")
    return f"{value:g}" if isinstance(value, float) else str(value)


def _each(values: Iterable[Any]) -> str:
    return " or ".join(dict.fromkeys(f"{v:g}" if isinstance(v, float) else str(v) for v in values))


def _machine(told: Mapping[str, Any]) -> str:
    machine = told.get("machine") or {}
    cards = machine.get("accelerators") or []
    if told.get("device", "cpu") != "cpu" and cards:
        return str(cards[0])
    return f"{machine.get('processor', 'unknown processor')} with {machine.get('cores', '?')} cores"
