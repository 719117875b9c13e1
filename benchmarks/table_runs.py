"""What the tables of many trained methods share: small recipes, data, and training that goes on where it was stopped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from healmap import recipes

HEALMAP = (sys.executable, "-m", "healmap")


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
        manifest = run / "manifest.json"
        if manifest.is_file() and "finished" in json.loads(manifest.read_text(encoding="utf-8")):
            return ""
        if run.exists() and not manifest.is_file():
            shutil.rmtree(run)
        return last_words(self.command(recipe, data, run, settings), self.environment)


def last_words(command: Sequence[str], environment: Mapping[str, str], allowed: Sequence[int] = (0,)) -> str:
    """Runs a command; the last line of its errors if its exit code is none of ``allowed``, else nothing."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return "" if done.returncode in allowed else (done.stderr.strip().splitlines() or ["no message"])[-1]
