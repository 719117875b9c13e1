"""How fast PaDiM and PatchCore fit and score, and how near PatchCore's search comes to this machine's matrix-product peak.

    python benchmarks/fit.py                                        # both, with filters and ResNet-18, at 256 px
    python benchmarks/fit.py --methods patchcore --backbones wide_resnet50_2 --settings d=550 --json fit.json

Generated images; an ImageNet architecture gets a file of random weights, made on the spot, since its speed does not depend on
them. Each row is one method on one backbone:

* fit: images/s of the pass over the images, what happens at its end included, seconds of which are given beside it; another fit
  has made a step before, so that nothing is done here for the first time;
* score: images/s of ``predict``, map and blur included, PatchCore's with a full bank;
* search: PatchCore's nearest neighbours alone, 2 · patches · bank · D operations an image, and their share of the peak, the
  fastest matrix product found on this machine before and after each search (``train_step.peak``): of matrices with 1024 or 2048
  rows, so larger ones might be faster. Beside it the rate of the search's own products alone, whose matrices may be thin.

Times are the best of some turns, so that a machine that others use still gives a fair picture; the fit is timed once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from memory import make_weights
from published_steps import Setting
from torch import Tensor
from train_step import CLOCKS, clock, machine, peak

from healmap import methods
from healmap.config import override
from healmap.methods.backbone import IMAGENET, BackboneConfig
from healmap.methods.base import Method, Optimisers
from healmap.methods.neighbours import BLOCK, nearest
from healmap.methods.patchcore import PatchCore
from healmap.types import Batch, Spec

BACKBONES = (*IMAGENET, "filters")


@dataclass
class Row:
    method: str
    backbone: str
    size: int
    batch: int
    images: int  # fitted
    fit_images_per_s: float
    finish_s: float
    score_images_per_s: float
    bank: int | None = None  # entries
    dimensions: int | None = None  # of an entry
    search_images_per_s: float | None = None
    search_gflop_per_s: float | None = None
    products_gflop_per_s: float | None = None  # of the search's matrix products with nothing around them
    peak_gflop_per_s: float | None = None  # before or after the search
    peak_share: float | None = None  # of the highest of all rows


def images(setting: Setting, count: int, seed: int) -> Tensor:
    """Soft noise, (count, C, size, size) in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(count, setting.channels, setting.size, setting.size, generator=generator) * 2 - 1
    return torch.nn.functional.avg_pool2d(noise, 3, 1, 1).to(setting.device)


def built(name: str, backbone: BackboneConfig, setting: Setting, changes: list[str]) -> Method:
    """The method with those of the settings that it has."""
    cls = methods.get(name)
    known = {f.name for f in fields(cls.Config)}
    config = override(cls.Config(), [c for c in changes if c.partition("=")[0].partition(".")[0] in known])
    config = replace(config, backbone=backbone)
    if backbone.name == "filters" and "features" in known:
        config = replace(config, features="anomalib")  # as its recipes: too few channels for 1024 bins
    torch.manual_seed(0)
    return cls(config, Spec(setting.channels, setting.size, setting.size)).to(setting.device)


def warm_up(method: Method, setting: Setting) -> None:
    """One step of a fit that is thrown away: what a process does once in its life is done."""
    *_, phase = method.train().phases()
    phase.step(iter([Batch(images(setting, setting.batch, -1))]), 0, Optimisers({}))


def fitted(method: Method, setting: Setting, count: int) -> tuple[float, float]:
    """One pass over ``count`` images: (seconds in all, seconds of them at the end)."""

    def batches() -> Iterator[Batch]:
        for start in range(0, count, setting.batch):
            yield Batch(images(setting, min(setting.batch, count - start), start))

    *_, phase = method.train().phases()
    ready, steps = batches(), -(-count // setting.batch)
    seconds = 0.0
    for k in range(steps):
        batch = iter([next(ready)])  # made outside the time
        seconds += setting.timed(partial(phase.step, batch, k, Optimisers({})))
    end = setting.timed(phase.finish)
    method.eval()
    return seconds + end, end


def search_operations(patches: Tensor, bank: Tensor) -> int:
    """Of the products of all patches, (P, D), with all entries, (K, D): 2 P K D."""
    return 2 * len(patches) * bank.numel()


@torch.no_grad()
def products(patches: Tensor, bank: Tensor) -> None:
    """The matrix products of the search, block by block as there, and nothing done with them."""
    norms = bank.square().sum(1)
    for q in patches.split(BLOCK[0]):
        for start in range(0, len(bank), BLOCK[1]):
            part = slice(start, start + BLOCK[1])
            torch.addmm(norms[part], q, bank[part].T, alpha=-2)


@torch.no_grad()
def measure(name: str, backbone: BackboneConfig, setting: Setting, count: int, turns: int, changes: list[str]) -> Row:
    warm_up(built(name, backbone, setting, changes), setting)
    method = built(name, backbone, setting, changes)
    seconds, end = fitted(method, setting, count)
    image = images(setting, setting.batch, -1)
    patches = None
    if isinstance(method, PatchCore):
        patches = method.patches(image).flatten(0, 1)
        # As many entries as the bank has room for, whatever these few images filled of it.
        method.bank.copy_(patches[torch.randint(len(patches), (len(method.bank),), device=patches.device)])
        method.filled.fill_(len(method.bank))
    method.predict(image)  # warms up
    score = min(setting.timed(lambda: method.predict(image)) for _ in range(turns))
    row = Row(name, backbone.name, setting.size, setting.batch, count, count / seconds, end, setting.batch / score)
    if isinstance(method, PatchCore) and patches is not None:
        before = peak(torch.float32, setting)
        search = min(setting.timed(lambda: nearest(patches, method.bank, method.config.neighbours)) for _ in range(turns))
        bare = min(setting.timed(lambda: products(patches, method.bank)) for _ in range(turns))
        row.peak_gflop_per_s = max(before, peak(torch.float32, setting)) / 1e9
        row.bank, row.dimensions = method.bank.shape
        row.search_images_per_s = setting.batch / search
        operations = search_operations(patches, method.bank) / 1e9
        row.search_gflop_per_s, row.products_gflop_per_s = operations / search, operations / bare
    return row


def with_shares(rows: Sequence[Row]) -> tuple[list[Row], float | None]:
    """The rows beside the highest peak of all, and this, in GFLOP/s; None where no row has one."""
    top = max((r.peak_gflop_per_s for r in rows if r.peak_gflop_per_s is not None), default=None)
    return [replace(r, peak_share=r.search_gflop_per_s / top) if top and r.search_gflop_per_s else r for r in rows], top


HEAD = (
    "method", "backbone", "size", "fitted", "fit images/s", "of which end, s", "score images/s",
    "bank", "search images/s", "GFLOP/s", "of peak", "its products alone, GFLOP/s",
)  # fmt: skip


def markdown(rows: Sequence[Row], top: float | None, device: str, clock_name: str) -> str:
    def line(values: list[Any]) -> str:
        return "| " + " | ".join(map(str, values)) + " |"

    lines = [line([*HEAD]), "|---" * len(HEAD) + "|"]
    for r in rows:
        fit = [r.images, f"{r.fit_images_per_s:.2f}", f"{r.finish_s:.1f}", f"{r.score_images_per_s:.2f}"]
        search = [""] * 5
        if r.peak_share is not None:
            rates = [f"{r.search_images_per_s:.2f}", f"{r.search_gflop_per_s:.0f}", f"{r.peak_share:.0%}"]
            search = [f"{r.bank} x {r.dimensions}", *rates, f"{r.products_gflop_per_s:.0f}"]
        lines.append(line([r.method, r.backbone, r.size, *fit, *search]))
    note = f"Measured on this machine: {machine(device)}."
    if top is not None:
        note += f" Its peak in products of matrices with 1024 or 2048 rows: fp32 {top:.0f} GFLOP/s."
    if clock_name == "processor":
        note += " Rates are per second of processor time."
    return "\n".join([*lines, "", note, ""])


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=["padim", "patchcore"], choices=["padim", "patchcore"])
    parser.add_argument("--backbones", nargs="*", default=["filters", "resnet18"], choices=BACKBONES)
    parser.add_argument("--images", type=int, default=64, help="fitted")
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--settings", nargs="*", default=[], metavar="NAME=VALUE", help="of the methods that have it: d=550")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="processor: for a busy machine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args(argv)
    if args.clock == "processor" and args.threads != 1:
        parser.error("--clock processor needs --threads 1: waiting threads would count as work")
    if args.threads:
        torch.set_num_threads(args.threads)
    setting = Setting(args.size, 0, args.batch, args.channels, args.device, clock(args.clock, args.device))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in args.backbones:
            file = str(Path(folder) / f"{name}.safetensors") if name in IMAGENET else ""
            if file:
                make_weights(name, file)
            backbone: Any = BackboneConfig(name=name, weights=file)
            rows += [measure(m, backbone, setting, args.images, args.turns, args.settings) for m in args.methods]
    rows, top = with_shares(rows)
    table = markdown(rows, top, args.device, args.clock)
    print(table)
    if args.markdown:
        args.markdown.write_text(table)
    if args.json:
        plain = {"machine": machine(args.device), "peak_gflop_per_s": top, "rows": [asdict(r) for r in rows]}
        args.json.write_text(json.dumps(plain, indent=2) + "\n")


if __name__ == "__main__":
    main()
