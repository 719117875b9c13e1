"""Do predicted NIfTI maps lie exactly on their inputs, and how well do they mark the voxel masks?

    healmap predict RUN -i SCANS/*/flair.nii.gz -o OUT
    python benchmarks/overlay.py SCANS OUT --mask seg.nii.gz

For every volume: shape and affine of map, mask and healed image against the input; against the voxel mask beside the input,
average precision, the Dice of the mask at the validation threshold, and pooled the best Dice (threshold found on these masks).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import nibabel as nib
import numpy as np
from sklearn.metrics import average_precision_score


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float(np.count_nonzero(a & b)) / max(1, np.count_nonzero(a) + np.count_nonzero(b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, help="the folder that the paths in OUT/scores.csv are relative to")
    parser.add_argument("out", type=Path)
    parser.add_argument("--mask", default="seg.nii.gz", help="file name of the voxel mask beside each input")
    args = parser.parse_args()
    with open(args.out / "scores.csv", newline="", encoding="utf-8") as file:
        names = sorted({row["path"] for row in csv.DictReader(file) if not row["error"]})
    maps, truths, marked, bright = [], [], [], []
    print("| volume | voxels | affine of results | average precision | brightness alone | Dice, validation threshold |")
    print("|---|---|---|---|---|---|")
    for name in names:
        image = nib.load(args.scans / name)
        found = {part: nib.load(args.out / part / name) for part in ("maps", "masks", "healed")}
        for part, other in found.items():
            assert other.shape == image.shape, (part, other.shape, image.shape)
            assert np.array_equal(other.affine, image.affine), (part, "another affine")
        truth = np.asarray(nib.load((args.scans / name).parent / args.mask).dataobj) > 0
        values = found["maps"].get_fdata(dtype=np.float32)
        mask = np.asarray(found["masks"].dataobj) > 0
        assert np.isfinite(values).all()
        size = " × ".join(map(str, image.shape))
        ap = average_precision_score(truth.ravel(), values.ravel())
        grey = image.get_fdata(dtype=np.float32)
        trivial = average_precision_score(truth.ravel(), grey.ravel())
        print(f"| {name} | {size} | equal to the input's | {ap:.3f} | {trivial:.3f} | {dice(mask, truth):.3f} |")
        maps.append(values.ravel())
        truths.append(truth.ravel())
        marked.append(mask.ravel())
        bright.append(grey.ravel())
    values, truth, mask = np.concatenate(maps), np.concatenate(truths), np.concatenate(marked)
    best = max(dice(values >= t, truth) for t in np.quantile(values[values > 0], np.linspace(0.5, 0.999, 60)))
    ap, trivial = average_precision_score(truth, values), average_precision_score(truth, np.concatenate(bright))
    print(f"\nPooled: average precision {ap:.3f} (brightness alone {trivial:.3f}), Dice at the validation threshold")
    print(f"{dice(mask, truth):.3f}, best Dice {best:.3f}.")


if __name__ == "__main__":
    main()
