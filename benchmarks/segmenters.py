"""Dice of the segmenters that CycleGAN with shape consistency trains along.

    python benchmarks/segmenters.py RUN --data PATH --split test [--select column=value] [--weights best] [--json OUT.json]

RUN is a run of cyclegan-shape. Of each domain's segmenter: on real images of its own domain, on images of the other domain
translated into its own (the other domain segmented with outlines from here), and, for comparison, on images of the other
domain as they are. Two runs, with ``method.synthetic`` on and off, show what the translated images teach.

Dice counts the pixels of all images together; "per image" is the mean over the images whose mask shows something. A pixel is
marked where the segmenter gives it more than one half.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from healmap.data.dataset import Dataset, open_dataset
from healmap.detection.predictor import Predictor
from healmap.errors import HealError
from healmap.methods.cyclegan_shape import CycleGANShape
from healmap.metrics.overlap import Overlap, overlap

REAL, TRANSLATED, UNTRANSLATED = "own domain, real", "other domain, translated", "other domain, as it is"


@dataclass(frozen=True)
class Row:
    segmenter: str  # the domain it is for
    images: str
    from_domain: str
    n: int  # images with a mask
    dice: float  # of all pixels together
    dice_per_image: float | None  # mean over the images whose mask shows something; None: there is none


def measure(method: CycleGANShape, dataset: Dataset, device: torch.device, batch_size: int = 16) -> list[Row]:
    """All six figures, in the order of the domains."""
    labels, names = dataset.labels(), method.spec.domains.names
    outlined = np.array([dataset.mask(i) is not None for i in range(len(dataset))], bool)
    rows = []
    for own in (0, 1):
        for kind, origin in ((REAL, own), (TRANSLATED, 1 - own), (UNTRANSLATED, 1 - own)):
            chosen = np.flatnonzero((labels == origin) & outlined)
            counts = []
            for start in range(0, len(chosen), batch_size):
                some = chosen[start : start + batch_size]
                marked = mark(method, dataset.images(some), own, translated=kind == TRANSLATED, device=device)
                counts += [overlap(m, dataset.mask(int(i))) for m, i in zip(marked, some, strict=True)]  # type: ignore[arg-type]
            rows.append(row(names[own], kind, names[origin], counts))
    return rows


@torch.no_grad()
def mark(
    method: CycleGANShape, images: NDArray[np.float32], own: int, *, translated: bool, device: torch.device
) -> NDArray[np.bool_]:
    """(N, C, S, S) -> (N, S, S): what the segmenter of domain ``own`` marks, after translation into it if asked."""
    x = torch.as_tensor(images).to(device)
    if translated:
        x = method.translate_to(x, torch.full((len(x),), own, device=device))
    return (method.predict(x).maps[f"segmentation_{own}"][:, 0] > 0.5).cpu().numpy()


def row(segmenter: str, images: str, origin: str, counts: Sequence[Overlap]) -> Row:
    whole = Overlap(*(sum(getattr(c, part) for c in counts) for part in ("tp", "fp", "fn", "tn")))
    shown = [c.dice for c in counts if c.tp + c.fn]
    return Row(segmenter, images, origin, len(counts), whole.dice, float(np.mean(shown)) if shown else None)


def markdown(rows: Sequence[Row]) -> str:
    lines = ["| segmenter of | images | from | n | Dice | Dice per image |", "|---|---|---|---|---|---|"]
    for r in rows:
        single = "–" if r.dice_per_image is None else f"{r.dice_per_image:.3f}"
        lines.append(f"| {r.segmenter} | {r.images} | {r.from_domain} | {r.n} | {r.dice:.3f} | {single} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test", choices=["train", "val", "test"])
    parser.add_argument("--select", help="column=value: only these rows; default: as in training")
    parser.add_argument("--weights", default="last", choices=["best", "last"], help="best: by the validation AUROC of the map")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    args = parser.parse_args(argv)
    try:
        predictor = Predictor.load(args.run, weights=args.weights, device=args.device)
        method = predictor.method
        if not isinstance(method, CycleGANShape):
            sys.exit(f"{args.run}: a run of {method.title}, which has no segmenters; give one of cyclegan-shape")
        config = predictor.data if args.select is None else replace(predictor.data, select=args.select)
        dataset = open_dataset(
            args.data, args.split, config, preprocessing=predictor.preprocessing, domains=method.spec.domains
        )
        rows = measure(method, dataset, predictor.device)
    except HealError as error:
        sys.exit(str(error))
    print(markdown(rows))
    plain = {
        "weights_sha256": predictor.weights_sha256,
        "split": args.split,
        "synthetic": method.config.synthetic,
        "order": method.config.order,
        "gamma": method.gamma,
        "rows": [asdict(r) for r in rows],
    }
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    if args.json:
        args.json.write_text(text + "\n")
    else:
        print(f"\n```json\n{text}\n```")


if __name__ == "__main__":
    main()
