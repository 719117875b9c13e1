"""Kills training runs with SIGKILL at random moments, resumes them, and compares the end with an uninterrupted run.

    python tests/training/kill.py --kills 20 --out FOLDER [--fresh] [--mutant rng]

Toy runs of three methods. Only kills that hit a process which is training and has a checkpoint are counted. The answer is
one line of JSON; the exit status is 0 if every run ended bit-identical. ``--fresh`` starts a new interpreter for every sitting;
without it sittings are forked from one that has already imported torch. A mutant leaves one part of the state out of the resume
and must be found out: it is put into this process, not into healmap.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["OMP_NUM_THREADS"] = "1"

import toys

from healmap.training import checkpoint, loop, train_run

METHODS = ("restoration", "fixed-point-gan", "healthygan")
MUTANTS = ("", "rng", "average", "optimisers", "consumed")


def plant(mutant: str) -> None:
    """Leaves one part of the state as a fresh process has it."""
    whole = loop.Loop.load_state_dict

    def partial(self: loop.Loop, state: dict) -> None:
        fresh, state = self.state_dict(), {**state}
        if mutant == "consumed":
            state["position"] = {**state["position"], "consumed": 0}
        elif mutant == "rng":
            state["processes"] = [{**state["processes"][0], "rng": fresh["processes"][0]["rng"]}]
        else:
            state[mutant] = fresh[mutant]
        whole(self, state)

    if mutant:
        loop.Loop.load_state_dict = partial  # type: ignore[method-assign]


def sitting(name: str, data: Path, out: Path, steps: int) -> None:
    """One process's part of a run: from the beginning, or from the last checkpoint, as far as it gets."""
    toy = toys.toy(name, data, steps=steps, sample_every=steps // 3)
    train_run(toy.experiment, toy.train, toy.val, out, resume=True, quiet=True)


def start(arguments: argparse.Namespace, name: str, out: Path) -> int:
    """A process that trains; its id."""
    if arguments.fresh:
        command = [
            sys.executable,
            __file__,
            "--sitting",
            name,
            "--out",
            str(out),
            "--data",
            str(arguments.data),
            "--steps",
            str(arguments.steps),
            "--mutant",
            arguments.mutant,
        ]
        return subprocess.Popen(command).pid
    child = os.fork()
    if not child:
        status = 1
        try:
            sitting(name, arguments.data, out, arguments.steps)
            status = 0
        finally:
            os._exit(status)
    return child


def ended(child: int, *, wait: bool = False) -> int | None:
    """The exit status if the process is gone (negative: the signal)."""
    done, status = os.waitpid(child, 0 if wait else os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if done else None


def trained(out: Path) -> int:
    """A mark that changes when a sitting begins its first step."""
    manifest = out / "manifest.json"
    return manifest.stat().st_mtime_ns if checkpoint.exists(out) and manifest.exists() else 0


def kill_once(arguments: argparse.Namespace, name: str, out: Path, seconds: float, chance: random.Random) -> bool:
    """Starts a sitting and kills it at a random moment of its training; False if it came to its end before."""
    before, delay = trained(out), chance.uniform(0, seconds)
    child, moment = start(arguments, name, out), float("inf")
    while time.monotonic() < moment:
        status = ended(child)
        if status is not None:
            assert status == 0, f"a sitting failed with status {status}"
            return False
        if moment == float("inf") and trained(out) != before:
            moment = time.monotonic() + delay
        time.sleep(0.003)
    os.kill(child, signal.SIGKILL)
    return ended(child, wait=True) == -signal.SIGKILL


def kill_and_compare(arguments: argparse.Namespace, name: str, kills: int, chance: random.Random) -> dict[str, object]:
    """As many runs as it takes, each killed until it is finished, each compared with the uninterrupted one."""
    whole = arguments.out / f"{name}-whole"
    assert ended(start(arguments, name, whole), wait=True) == 0, "the uninterrupted run failed"
    wanted, seconds = toys.digests(whole), json.loads((whole / "manifest.json").read_text())["finished"]["seconds"]
    hits, at, differs, number = 0, [], set(), 0
    while hits < kills:
        out, finished = arguments.out / f"{name}-{number}", False
        number += 1
        while not finished and hits < kills:
            if kill_once(arguments, name, out, seconds, chance):
                hits += 1
                at.append(checkpoint.load(out)["loop"]["position"]["done"])
            else:
                finished = True
        if not finished:
            assert ended(start(arguments, name, out), wait=True) == 0, "the last sitting failed"
        got = toys.digests(out)
        differs |= {key for key in wanted if got[key] != wanted[key]}
    return {"kills": hits, "runs": number, "resumed_at": at, "differs": sorted(differs)}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--mutant", choices=MUTANTS, default="")
    parser.add_argument("--sitting", default="")
    arguments = parser.parse_args()
    arguments.data = arguments.data or arguments.out / "phantoms"
    plant(arguments.mutant)
    if arguments.sitting:
        sitting(arguments.sitting, arguments.data, arguments.out, arguments.steps)
        return 0
    shutil.rmtree(arguments.out, ignore_errors=True)
    toys.phantoms(arguments.data)
    if not arguments.fresh:
        import lightning_fabric  # noqa: F401 (once, before the forks)
    chance, answer = random.Random(arguments.seed), {}
    for i, name in enumerate(METHODS):
        kills = arguments.kills // len(METHODS) + (i < arguments.kills % len(METHODS))
        answer[name] = kill_and_compare(arguments, name, kills, chance)
    print(json.dumps(answer))
    return int(any(a["differs"] for a in answer.values()))


if __name__ == "__main__":
    sys.exit(main())
