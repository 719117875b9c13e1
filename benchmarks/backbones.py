"""Backbones that need no file, beside each other: fixed filters, an encoder trained by either task, the same encoder untrained.

    python benchmarks/backbones.py --data PATH [--split val] [--size 64] [--steps 300] [--width 32] [--seeds 0 1 2] [--json OUT]

PATH is a labelled table with splits (``healmap data make phantoms``). PaDiM and PatchCore learn from the healthy images of its
train split with each backbone and answer for another, by default val: a task chosen by figures of ``test`` would flatter it
there. "untrained" is what healmap refuses: random weights. Figures: AUROC of the scores of images that are known to be healthy
or diseased, average precision of the maps' pixels where these are known too (a diseased image without a mask tells nothing),
seconds of processor time for learning. PatchCore measures with the encoder that PaDiM's run has trained. Both tasks see as
many images in as many steps; rotation shows each four times.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from healmap.data.dataset import Dataset, open_dataset
from healmap.data.loader import Loader
from healmap.errors import HealError
from healmap.experiment import DataConfig
from healmap.methods.backbone import BackboneConfig
from healmap.methods.base import Method, Optimisers
from healmap.methods.padim import PaDiM, PaDiMConfig
from healmap.methods.patchcore import PatchCore, PatchCoreConfig
from healmap.metrics.image_level import auroc, average_precision
from healmap.types import DISEASED, HEALTHY, SPLITS

UNTRAINED = "untrained"
ROWS = ("filters", "self, restoration", "self, rotation", UNTRAINED)


@dataclass(frozen=True)
class Row:
    backbone: str
    method: str
    seed: int
    auroc: float  # of images
    pixel_ap: float
    seconds: float  # of processor time, for learning


def config_of(backbone: str, steps: int, width: int) -> BackboneConfig:
    if backbone == "filters":
        return BackboneConfig(name="filters")
    task = "rotation" if backbone == "self, rotation" else "restoration"
    return BackboneConfig(name="self", self_task=task, self_steps=steps, self_width=width)  # type: ignore[arg-type]


def methods(backbone: BackboneConfig, train: Dataset) -> list[Method]:
    """PaDiM with at most 100 channels; PatchCore with the plain channels of stages 2 and 3, which are few here."""
    few = 0 if backbone.name == "filters" or 7 * backbone.self_width <= 100 else 100  # 0: all
    return [
        PaDiM(PaDiMConfig(backbone=backbone, d=few), train.spec),
        PatchCore(PatchCoreConfig(backbone=backbone, features="anomalib", bank_size=2000), train.spec),
    ]


def learn(method: Method, train: Dataset, seed: int, *, skip: str = "") -> None:
    """All phases but the one called ``skip``."""
    loader = Loader(train, method.needs, batch_size=16, seed=seed, workers=0)
    method.train()
    for phase in method.phases():
        if phase.name == skip:
            continue
        total = len(loader) if phase.steps is None else phase.steps
        batches = loader.one_pass() if phase.steps is None else loader.forever()
        optimisers = Optimisers(phase.optimisers)
        for k in range(total):
            optimisers.scale_lr(phase.lr_scale(k, total))
            phase.step(batches, k, optimisers)
        phase.finish()
    method.eval()


@torch.no_grad()
def measure(method: Method, judged: Dataset) -> tuple[float, float]:
    """AUROC of the images of known label, average precision of the pixels of images whose lesions are known. NaN: none are."""
    truth, scores, masks, maps = [], [], [], []
    for first in range(0, len(judged), 16):
        some = range(first, min(first + 16, len(judged)))
        found = method.predict(torch.as_tensor(judged.images(some)))
        assert found.anomaly_map is not None
        for i, score, one in zip(some, found.score.numpy(), found.anomaly_map[:, 0].numpy(), strict=True):
            label, mask = judged.items[i].label, judged.mask(i)
            if label in (HEALTHY, DISEASED):
                truth.append(label == DISEASED)
                scores.append(score)
            if mask is not None:
                masks.append(mask.ravel())
                maps.append(one.ravel())
    pixel_ap = average_precision(np.concatenate(masks), np.concatenate(maps)) if masks else np.nan
    return auroc(np.array(truth), np.array(scores)), pixel_ap


def table(train: Dataset, judged: Dataset, *, steps: int, width: int, seeds: Sequence[int]) -> list[Row]:
    rows = []
    for backbone in ROWS:
        for seed in seeds:
            torch.manual_seed(seed)
            trained = None
            for method in methods(config_of(backbone, steps, width), train):
                begun = time.process_time()
                if trained is None:
                    learn(method, train, seed, skip="backbone" if backbone == UNTRAINED else "")
                    trained = method.get_submodule("backbone").state_dict()
                else:  # the second method measures with the network that the first has trained
                    method.get_submodule("backbone").load_state_dict(trained)
                    learn(method, train, seed, skip="backbone")
                seconds = time.process_time() - begun
                rows.append(Row(backbone, type(method).__name__, seed, *measure(method, judged), seconds))
                print(rows[-1], file=sys.stderr, flush=True)
    return rows


def markdown(rows: Sequence[Row]) -> str:
    """Means over seeds, and in brackets the lowest and highest."""

    def text(values: Sequence[float]) -> str:
        return f"{np.mean(values):.3f}" + (f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else "")

    lines = ["| backbone | method | image AUROC | pixel AP | seconds |", "|---|---|---|---|---|"]
    for backbone, method in dict.fromkeys((r.backbone, r.method) for r in rows):
        some = [r for r in rows if (r.backbone, r.method) == (backbone, method)]
        seconds = np.mean([r.seconds for r in some])
        figures = f"{text([r.auroc for r in some])} | {text([r.pixel_ap for r in some])}"
        lines.append(f"| {backbone} | {method} | {figures} | {seconds:.0f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", choices=SPLITS, default="val", help="that they answer for (val)")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=300, help="of 16 images, to train the encoder")
    parser.add_argument("--width", type=int, default=32, help="of the encoder")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", type=Path, help="write the rows there as well")
    args = parser.parse_args(argv)
    try:
        train = open_dataset(args.data, "train", DataConfig(size=args.size))
        judged = open_dataset(args.data, args.split, DataConfig(size=args.size), preprocessing=train.preprocessing)
        rows = table(train, judged, steps=args.steps, width=args.width, seeds=args.seeds)
    except HealError as error:
        sys.exit(str(error))
    patients = judged.counts()["patients"]
    print(f"{len(judged)} images of {patients} patients, split {args.split}\n\n{markdown(rows)}")
    if args.json:
        args.json.write_text(json.dumps([asdict(r) for r in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
