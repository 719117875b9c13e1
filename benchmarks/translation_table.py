"""Every translation method trained for a few minutes on made-up data, side by side: the table of docs/results.md.

    python benchmarks/translation_table.py WORK --minutes 2 --jobs 2

WORK gets the data (``ellipses``: DeScarGAN's, fair, 64 px; ``phantoms``), a run and an evaluation per method, and ``table.md``.
What is finished is not done again, so that the script goes on where it was stopped; a run there that was trained otherwise than
is asked for now ends it, with what differs. Every job has ``--threads`` threads; nothing is chosen on the test split. ``no
change`` is the image itself as its healed version; pix2pix, which learns from pairs that no real data have, is the other end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from table_runs import HEALMAP, Training, conditions, finished, last_words, make_phantoms, refuse_others, small_recipe

from healmap import methods

# How intensities are brought to [-1, 1]: the ellipses are stored on a fixed scale.
DATA = {
    "ellipses": ["data.normalisation=none"],
    "phantoms": ["data.normalisation=foreground-median"],
}
COLUMNS = {
    "image AUROC": "image.auroc",
    "pixel AUROC": "pixel.auroc",
    "Dice": "pixel.dice",
    "best Dice": "pixel.dice_best",
    "MSE(d, GT)": "twin.mse_difference",
    "SSIM(d, GT)": "twin.ssim_difference",
    "MSE(r_h, a_h)": "healthy.mse",
}
FLOOR = {"MSE(d, GT)": "twin.mse_difference_untouched", "SSIM(d, GT)": "twin.ssim_difference_untouched"}
# Those that translate, and Restoration; comparators_table.py has all. SimGAN is a recipe that stands for a paper's method.
TRANSLATING = [*methods.names()[: methods.names().index("restoration") + 1], "simgan"]


def recipe_of(name: str, data: str) -> str:
    """The small recipe of a method, where it has one; Restoration deforms where the lesions do."""
    if name == "restoration" and data == "ellipses":
        return "restoration-warp"
    return small_recipe(name)


def make_data(work: Path, seed: int) -> None:
    if not (work / "ellipses" / "labels.csv").is_file():
        counts = ["--train", "400", "--val", "60", "--test", "60", "--size", "64"]
        words = ["data", "make", "ellipses", str(work / "ellipses"), *counts, "--seed", str(seed), "--pairs"]
        subprocess.run([*HEALMAP, *words], check=True)
    make_phantoms(work / "phantoms", seed)


def one(name: str, data: str, args: argparse.Namespace) -> str:
    """Trains and evaluates; returns a line for the terminal."""
    folder, table = args.work / f"{data}-{name}", args.work / data
    if evaluated(folder):
        return f"{data} {name}: finished before"
    training = Training(args.minutes, args.threads, args.seed)
    reason = training.run(recipe_of(name, data), table, folder, DATA[data])
    if not reason:
        evaluate = [*HEALMAP, "evaluate", str(folder), "--data", str(table), "-o", str(folder / "test")]
        reason = last_words([*evaluate, "--assume-diseased", "--bootstrap", "200"], training.environment)
    if reason:
        return f"{data} {name}: failed: {reason}"
    return f"{data} {name}: done"


def evaluated(folder: Path) -> bool:
    return bool(finished(folder)) and (folder / "test" / "metrics.json").is_file()


def table_of(data: str, names: list[str], work: Path) -> str:
    lines = ["| method | needs | steps | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 3) + "|"]
    floor: list[str] = []
    for name in names:
        folder = work / f"{data}-{name}"
        if not evaluated(folder):
            lines.append(f"| {name} | | not finished |" + " |" * len(COLUMNS))
            continue
        tree = json.loads((folder / "test" / "metrics.json").read_text(encoding="utf-8"))
        steps = finished(folder)["steps"]
        cells = [figure(tree, path) for path in COLUMNS.values()]
        lines.append(f"| {name} | {tree['protocol']['needs']} | {steps:,} | " + " | ".join(cells) + " |")
        floor = floor or [figure(tree, FLOOR[c]) if c in FLOOR else "0" if c == "MSE(r_h, a_h)" else "–" for c in COLUMNS]
    if floor:
        lines.insert(2, "| no change | | | " + " | ".join(floor) + " |")
    return "\n".join(lines)


def figure(tree: Any, path: str) -> str:
    for key in path.split("."):
        tree = tree.get(key, {}) if isinstance(tree, dict) else {}
    value = tree.get("value") if isinstance(tree, dict) else None
    return "–" if value is None else f"{value:.3f}" if value >= 0.01 or value == 0 else f"{value:.4f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, default=2.0, help="of training, each")
    parser.add_argument("--methods", nargs="*", default=TRANSLATING, metavar="NAME")
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    args.work.mkdir(parents=True, exist_ok=True)
    jobs = [(name, data) for name in args.methods for data in args.data]
    make_data(args.work, args.seed)
    wanted = [(recipe_of(name, data), args.work / data, args.work / f"{data}-{name}", DATA[data]) for name, data in jobs]
    refuse_others(Training(args.minutes, args.threads, args.seed), wanted)
    with ThreadPoolExecutor(args.jobs) as pool:
        for line in pool.map(lambda job: one(job[0], job[1], args), jobs):
            print(line, flush=True)
    done = {data: [f for name in args.methods if evaluated(f := args.work / f"{data}-{name}")] for data in args.data}
    parts = [f"{data}, {conditions(done[data])}:\n\n{table_of(data, args.methods, args.work)}" for data in args.data]
    text = "\n\n".join(parts)
    (args.work / "table.md").write_text(text + "\n", encoding="utf-8")
    print("\n" + text)


if __name__ == "__main__":
    main()
