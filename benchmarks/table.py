"""A Markdown table of evaluations side by side, for docs/results.md: value and 95 % interval per figure.

    python benchmarks/table.py NAME=EVALUATION [NAME=EVALUATION …]

Each EVALUATION is a folder that ``healmap evaluate`` wrote. The trivial baselines' columns are those of the first.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

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


def look_up(tree: Any, path: str) -> str:
    for key in path.split("."):
        if not isinstance(tree, dict) or key not in tree:
            return ""
        tree = tree[key]
    value, interval = cells(tree)
    return value if interval == "–" else f"{value} ({interval})"


def main() -> None:
    named = dict(argument.split("=", 1) for argument in sys.argv[1:])
    if not named:
        sys.exit(__doc__)
    trees = {name: json.loads((Path(folder) / "metrics.json").read_text()) for name, folder in named.items()}
    baselines = next(iter(trees.values()))["baseline"]
    print("| figure | " + " | ".join([*trees, "thumbnails (trivial)", "intensity (trivial)"]) + " |")
    print("|---" * (len(trees) + 3) + "|")
    for label, path in ROWS.items():
        found = [look_up(tree, path) for tree in trees.values()]
        found += [look_up(baselines.get(kind, {}), path) for kind in ("thumbnail", "threshold")]
        print(f"| {label} | " + " | ".join(found) + " |")


if __name__ == "__main__":
    main()
