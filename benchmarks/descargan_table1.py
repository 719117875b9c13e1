"""DeScarGAN, Fixed-Point GAN and StarGAN on DeScarGAN's ellipses at 256 px, beside the paper's Table 1.

    python benchmarks/descargan_table1.py WORK --minutes 60 --device cuda
    python benchmarks/descargan_table1.py WORK --steps 200000 --methods descargan-released --variants published

WORK gets the data (``fair`` and ``published``), a run and an evaluation per method and variant, and ``table1.md``. Methods have
their papers' settings. Stopped at any moment, the same command goes on there: what is finished is not done again, a run goes on
from its last checkpoint. Rows marked "paper" are Table 1. Ours are the same quantities: difference and truth of images that are
stretched to [-1, 1] by their own extremes, means over the diseased test images (MSE(r_h, a_h): over the healthy ones). One
differs: the paper's Dice has the truth's own mean Otsu threshold, ours one from validation data.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

from healmap import api
from healmap.errors import HealError, Interrupted

Variant = Literal["fair", "published"]
METHODS, VARIANTS = ("descargan", "fixed-point-gan", "stargan"), ("fair", "published")
COLUMNS = {
    "Dice": "pixel.dice_per_slice",
    "AUROC pix": "pixel.auroc_per_slice",
    "MSE(d, GT)": "twin.mse_difference",
    "SSIM": "twin.ssim_difference",
    "MSE(r_h, a_h)": "healthy.mse",
    "AUROC image": "image.auroc",
}
TABLE_1 = {  # section 4.1; image figures were left out there, "almost perfect" for every method
    "StarGAN": ("0.710", "0.962", "0.0229", "0.888", "0.0025", ""),
    "FP-GAN": ("0.766", "0.975", "0.0160", "0.917", "0.0027", ""),
    "VAGAN": ("0.442", "0.954", "0.1321", "0.869", "0.0036", ""),
    "VAE": ("0.288", "0.809", "0.0734", "0.668", "0.0316", ""),
    "DeScarGAN": ("0.853", "0.988", "0.0086", "0.954", "0.0018", ""),
}
SETTINGS = ("data.normalisation=none", "training.save_every=500")  # the ellipses are stored on their own fixed scale


def data_of(args: argparse.Namespace, variant: Variant) -> Path:
    """The variant's data set, made if it is not there: 2,000, 200 and 200 images of either class (section 3)."""
    folder = args.work / f"ellipses-{variant}"
    if not (folder / "labels.csv").is_file():
        counts = dict(zip(("train", "val", "test"), args.counts, strict=True))
        api.make_ellipses(folder, **counts, size=args.size, seed=args.seed, variant=variant)
    return folder


def run_of(args: argparse.Namespace, variant: Variant, name: str) -> None:
    """A finished run with its evaluation ``test/metrics.json``."""
    run = args.work / f"{variant}-{name}"
    if (run / "test" / "metrics.json").is_file():
        return
    data = data_of(args, variant)
    length = {"steps": args.steps, "minutes": args.minutes}
    common = {"size": args.size, "device": args.device, "seed": args.seed, "settings": [*SETTINGS, *args.set]}
    api.train(name, data, run, resume=True, **common, **length)
    api.evaluate(run, data, run / "test", device=args.device, weights=args.weights)


def figure(tree: Any, path: str) -> str:
    for key in path.split("."):
        tree = tree.get(key, {}) if isinstance(tree, Mapping) else {}
    value = tree.get("value") if isinstance(tree, Mapping) else None
    return "–" if value is None else f"{value:.4f}" if "mse" in path else f"{value:.3f}"


def table(work: Path, variants: Sequence[str], names: Sequence[str]) -> str:
    """Markdown: the paper's rows, then ours; a run that is not evaluated yet says so."""
    lines = ["| method | data | steps | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 3) + "|"]
    lines += [f"| {name} | paper | | " + " | ".join(values) + " |" for name, values in TABLE_1.items()]
    for variant in variants:
        for name in names:
            run = work / f"{variant}-{name}"
            if not (run / "test" / "metrics.json").is_file():
                lines.append(f"| {name} | {variant} | not finished |" + " |" * len(COLUMNS))
                continue
            tree = json.loads((run / "test" / "metrics.json").read_text())
            steps = json.loads((run / "manifest.json").read_text())["finished"]["steps"]
            lines.append(f"| {name} | {variant} | {steps:,} | " + " | ".join(figure(tree, p) for p in COLUMNS.values()) + " |")
    return "\n".join(lines) + "\n"


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float, help="of training, each run")
    length.add_argument("--steps", type=int, help="of training, each run; the papers' are 200,000")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--counts", type=int, nargs=3, default=(2000, 200, 200), metavar="N", help="train, val, test, by class")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="NAME", help="methods or recipes")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--weights", default="last", help="which are evaluated; the papers take the last")
    parser.add_argument("--set", nargs="*", default=[], metavar="SETTING", help="further settings of every run")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    args.work.mkdir(parents=True, exist_ok=True)
    code = 0
    for variant, name in product(args.variants, args.methods):
        try:
            run_of(args, variant, name)
        except HealError as error:  # what is done is shown all the same
            print(f"{variant} {name}: {error}", file=sys.stderr)
            code = error.exit_code
            if isinstance(error, Interrupted):
                break
        (args.work / "table1.md").write_text(table(args.work, args.variants, args.methods))
    print(table(args.work, args.variants, args.methods))
    return code


if __name__ == "__main__":
    sys.exit(main())
