"""Every method trained for the same few minutes on the same data, and compared: the comparators' table of docs/results.md.

    python benchmarks/comparators_table.py WORK --minutes 4 --jobs 2 --data phantoms lgg_flair=../shared/data/lgg_flair

WORK gets, for each of the data, a run per method (``DATA/runs/NAME``) and what ``healmap compare`` makes of them
(``DATA/comparison/``: table.csv, table.md, compare.html), and ``table.md`` with all tables. What is finished is not done again,
so that the script goes on where it was stopped; a run there that was trained otherwise than is asked for now ends it, with what
differs. Methods are trained by their small recipe; NAME=RECIPE asks for another, and ``--set NAME:PATH=VALUE`` changes a
setting of one method, ``--set PATH=VALUE`` of all. A method that cannot be trained on the data (pix2pix needs pairs) is listed
with the reason. The baselines see the images as the first method does. A table's head says what its runs record about
themselves.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from table_runs import (
    HEALMAP,
    Training,
    conditions,
    escaped,
    finished,
    last_words,
    make_phantoms,
    refuse_others,
    small_recipe,
)

from healmap import methods

# Brightness differs between scanners; the body's median travels. lgg_flair's five hospitals are the case in point.
SETTINGS = ("data.normalisation=foreground-median",)
FIRST = "restoration"  # differences are to it: the baseline that the others have to face


def asked_for(words: Sequence[str]) -> dict[str, str]:
    """NAME or NAME=RECIPE -> recipe by name; all methods when nothing is asked for. Restoration first, if it is among them."""
    pairs = [word.partition("=") for word in words or methods.names()]
    found = {name: recipe or small_recipe(name) for name, _, recipe in pairs}
    return {name: found[name] for name in sorted(found, key=lambda name: name != FIRST)}


def places(words: Sequence[str], work: Path, seed: int) -> dict[str, Path]:
    """``phantoms`` or NAME=PATH -> folder of images by name; phantoms are made below ``work``."""
    found: dict[str, Path] = {}
    for word in words:
        name, given, path = word.partition("=")
        if not given and name != "phantoms":
            sys.exit(f"--data {word}: write phantoms, or NAME=PATH")
        found[name] = Path(path) if given else work / "data" / "phantoms"
        if not given:
            make_phantoms(found[name], seed)
        elif not found[name].exists():
            sys.exit(f"--data {word}: no such file or folder")
    return found


def settings_of(name: str, words: Sequence[str]) -> list[str]:
    """The settings meant for a method: its own, and those of all."""
    own = [word.partition(":") for word in words]
    return [*SETTINGS, *(rest if colon else first for first, colon, rest in own if not colon or first == name)]


def train(name: str, recipe: str, data: Path, folder: Path, training: Training, settings: Sequence[str]) -> str:
    """A line for the terminal; the reason of a failure is kept beside the runs."""
    reason = training.run(recipe, data, folder / "runs" / name, settings)
    failure = folder / "failed" / f"{name}.txt"
    if reason:
        reason = reason.removeprefix("healmap: ")
        failure.parent.mkdir(parents=True, exist_ok=True)
        failure.write_text(reason + "\n", encoding="utf-8")
        return f"{folder.name} {name}: {reason}"
    failure.unlink(missing_ok=True)
    done = finished(folder / "runs" / name)
    return f"{folder.name} {name}: {done['steps']} steps in {done['seconds']:.0f} s"


def trained(names: Sequence[str], folder: Path) -> list[Path]:
    return [folder / "runs" / name for name in names if finished(folder / "runs" / name)]


def compare(names: Sequence[str], data: Path, folder: Path, training: Training, bootstrap: int) -> str:
    """The table of the runs that are finished, and below it the others, with the reasons."""
    runs, out = trained(names, folder), folder / "comparison"
    text = ""
    if runs:
        words = [*HEALMAP, "compare", *map(str, runs), "--data", str(data), "--split", "test", "-o", str(out)]
        reason = last_words([*words, "--bootstrap", str(bootstrap)], training.environment, allowed=(0, 3))
        text = reason + "\n" if reason else (out / "table.md").read_text(encoding="utf-8")
    else:
        shutil.rmtree(out, ignore_errors=True)
    reasons = {name: folder / "failed" / f"{name}.txt" for name in names if folder / "runs" / name not in runs}
    told = {name: p.read_text(encoding="utf-8") if p.is_file() else "not finished" for name, p in reasons.items()}
    untrained = [f"- {name}, not trained: {escaped(reason)}" for name, reason in told.items()]
    return text + ("\n" + "\n".join(untrained) + "\n" if untrained else "")


def main(arguments: Sequence[str] | None = None) -> Mapping[str, str]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=4.0, help="of training, each")
    parser.add_argument("--methods", nargs="*", default=[], metavar="NAME[=RECIPE]", help="all methods by default")
    parser.add_argument("--data", nargs="+", default=["phantoms"], metavar="NAME[=PATH]", help="phantoms, or NAME=PATH")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="[NAME:]PATH=VALUE")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--size", type=int, default=64, help="working side length in pixels")
    parser.add_argument("--bootstrap", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    args.work.mkdir(parents=True, exist_ok=True)
    chosen, data = asked_for(args.methods), places(args.data, args.work, args.seed)
    training = Training(args.minutes, args.threads, args.seed, args.size)

    pairs = [(name, place) for place in data for name in chosen]
    runs = {pair: args.work / pair[1] / "runs" / pair[0] for pair in pairs}
    refuse_others(training, [(chosen[n], data[p], runs[n, p], settings_of(n, args.set)) for n, p in pairs])

    def job(pair: tuple[str, str]) -> str:
        name, place = pair
        return train(name, chosen[name], data[place], args.work / place, training, settings_of(name, args.set))

    with ThreadPoolExecutor(args.jobs) as pool:
        for line in pool.map(job, pairs):
            print(line, flush=True)
    tables = {}
    for place, folder in data.items():
        tables[place] = compare(list(chosen), folder, args.work / place, training, args.bootstrap)
        print(f"\n{tables[place]}", flush=True)
    heads = {place: f"{escaped(place)}: {conditions(trained(list(chosen), args.work / place))}" for place in tables}
    text = "\n".join(f"## {heads[place]}\n\n{table}" for place, table in tables.items())
    (args.work / "table.md").write_text(text, encoding="utf-8")
    return tables


if __name__ == "__main__":
    main()
