"""A picture of evaluated cases for README and docs: one row per case, its columns input, healed, difference, map, masks.

    python benchmarks/figure.py EVALUATION [EVALUATION …] -o picture.png [--cases 3]

Each EVALUATION is a folder that ``healmap evaluate`` wrote. The same cases are shown for all of them, block beside block.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from healmap.io.atomic import replacing
from healmap.report.page import read_evaluation
from healmap.report.pictures import tiles

COLUMNS = ("input", "healed", "difference", "map", "masks")
SIDE, GAP, HEAD = 150, 4, 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=3)
    args = parser.parse_args()
    found = [read_evaluation(folder) for folder in args.evaluations]
    numbers = [{row["key"]: row["number"] for row in evaluation.rows} for evaluation in found]
    shared = [key for key in numbers[0] if all(key in n for n in numbers)]
    diseased = [key for key in shared if any(r["label"] == "diseased" and r["key"] == key for r in found[0].rows)]
    healthy = [key for key in shared if key not in diseased]
    chosen = diseased[: args.cases - 1] + healthy[:1]
    width = len(found) * (len(COLUMNS) * (SIDE + GAP) + 4 * GAP)
    canvas = Image.new("RGB", (width, HEAD + len(chosen) * (SIDE + GAP)), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(15)
    for block, evaluation in enumerate(found):
        left = block * (len(COLUMNS) * (SIDE + GAP) + 4 * GAP)
        draw.text((left, 0), evaluation.name, fill="black", font=font)
        for column, name in enumerate(COLUMNS):
            draw.text((left + column * (SIDE + GAP), HEAD // 2), name, fill="#555555", font=font)
        for line, key in enumerate(chosen):
            made = tiles(evaluation, numbers[block][key])
            for column, name in enumerate(COLUMNS):
                if name in made:
                    tile = Image.fromarray(np.ascontiguousarray(made[name])).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
                    canvas.paste(tile, (left + column * (SIDE + GAP), HEAD + line * (SIDE + GAP)))
    args.output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(args.output) as temporary:
        canvas.save(temporary, format="PNG", optimize=True)
    print(f"{args.output}: {len(chosen)} cases")


if __name__ == "__main__":
    main()
