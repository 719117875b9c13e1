"""A Markdown table of evaluations side by side, for docs/results.md: value and 95 % interval per figure.

    python benchmarks/table.py NAME=EVALUATION [NAME=EVALUATION …]

Each EVALUATION is a folder that ``healmap evaluate`` wrote. The trivial baselines' columns are those of the first; there are
none if it was made with ``--no-baselines``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from table_runs import escaped

from healmap.cli.listing import cells

ROWS = {
    "image AUROC": "image.auroc",
    "image AP": "image.ap",
    "pixel AUROC": "pixel.auroc",
    "pixel AP": "pixel.ap",
    "Dice, validation threshold": "pixel.dice",
    "Dice, best threshold": "pixel.dice_best",
    "Dice per slice": "pixel.dice_per_slice",
    "lesions found at 1 false positive per image": "lesion.sensitivity_at_1fp",
    "change on healthy images": "healthy.change",
}


BASELINES = {"thumbnail": "thumbnails (trivial)", "threshold": "intensity (trivial)"}


def look_up(tree: Any, path: str) -> str:
    for key in path.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return ""
        tree = tree[key]
    if not isinstance(tree, Mapping) or "value" not in tree:
        return ""
    value, interval = cells(tree)
    return value if interval == "–" else f"{value} ({interval})"


def evaluations(words: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """NAME=EVALUATION -> figures by name. Ends the script with a line where that cannot be had."""
    found: dict[str, Mapping[str, Any]] = {}
    for word in words:
        name, given, folder = word.partition("=")
        if not (name and given and folder):
            sys.exit(f"{word}: write NAME=EVALUATION")
        if name in found:
            sys.exit(f"{word}: {name} is named twice")
        try:
            found[name] = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            sys.exit(f"{word}: no evaluation there: metrics.json cannot be read")
    return found


def table(trees: Mapping[str, Mapping[str, Any]]) -> str:
    baselines = next(iter(trees.values())).get("baseline") or {}
    columns = [*trees.values(), *(baselines[kind] for kind in BASELINES if kind in baselines)]
    heads = [*map(escaped, trees), *(head for kind, head in BASELINES.items() if kind in baselines)]
    lines = ["| figure | " + " | ".join(heads) + " |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {label} | " + " | ".join(look_up(tree, path) for tree in columns) + " |" for label, path in ROWS.items()]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="NAME=EVALUATION")
    print(table(evaluations(parser.parse_args(arguments).evaluations)))


if __name__ == "__main__":
    main()
