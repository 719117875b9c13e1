"""What the read-out settings of a Restoration run are worth: the same weights, read in other ways, on validation images.

    python benchmarks/readout.py RUN --data PATH [--split val]

One row per setting: image AUROC, pixel AP and best Dice, maps and masks on the working grid. A setting is changed by itself;
the first row is the run's own. Choose on ``val``: figures of ``test`` would be flattered by the choice.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from healmap.data.dataset import open_dataset
from healmap.data.table import read_table
from healmap.detection.apply import apply_dataset
from healmap.detection.predictor import Predictor
from healmap.metrics import curves
from healmap.metrics.bins import PixelTally
from healmap.metrics.image_level import auroc
from healmap.types import DISEASED, HEALTHY

CHANGES: dict[str, dict[str, object]] = {
    "as trained": {},
    "mirror=false": {"mirror": False},
    "smooth=1": {"smooth": 1},
    "smooth=5": {"smooth": 5},
    "score=mean": {"score": "mean"},
    "score=foreground-mean": {"score": "foreground-mean"},
    "score=max": {"score": "max"},
    "sign=bright": {"sign": "bright"},
    "sign=dark": {"sign": "dark"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="val")
    args = parser.parse_args()
    predictor = Predictor.load(args.run)
    method = predictor.method
    dataset = open_dataset(
        read_table(args.data), args.split, predictor.data, predictor.preprocessing, domains=method.spec.domains
    )
    print(f"{len(dataset)} images of {dataset.counts()['patients']} patients, split {args.split}\n")
    print("| setting | image AUROC | pixel AP | best Dice |\n|---|---|---|---|")
    trained = method.config
    for name, change in CHANGES.items():
        method.config = replace(trained, **change)
        tally, truth, scores = PixelTally(), [], []
        for index, _, answer in apply_dataset(method, dataset, predictor.device):
            label, mask = dataset.items[index].label, dataset.mask(index)
            if label in (HEALTHY, DISEASED):
                truth.append(label == DISEASED)
                scores.append(answer.score)
            if mask is not None and answer.anomaly_map is not None:
                tally.add("", answer.anomaly_map, mask)
        positive, negative = tally.bins().pooled()
        ap, dice = float(curves.average_precision(positive, negative)), float(curves.best_dice(positive, negative))
        print(f"| {name} | {auroc(np.array(truth), np.array(scores)):.3f} | {ap:.3f} | {dice:.3f} |", flush=True)


if __name__ == "__main__":
    main()
