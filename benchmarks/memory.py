"""How much memory and time a method takes to learn from many images, whatever their number.

    python benchmarks/memory.py padim --backbone resnet18 --images 20657 --size 256 --json OUT.json --curve OUT.csv
    python benchmarks/memory.py patchcore --backbone wide_resnet50_2 --images 20657 --size 256 --limit 2000 --json OUT.json

Images are made on the fly from a seed and never kept. An ImageNet backbone reads a file of random weights under their public
names, made on the spot by another process, which leaves the figures alone. The method goes through its own phases as in
training, its weights are written at the end, then it answers for a few images. ``peak_mb`` is the most that the whole process
has held resident, in MB (10^6 bytes). ``seconds`` is the time that learning takes by the clock, ``picture_seconds`` the part of
it that making images takes; ``images_per_s`` is without that part. ``images_seen`` counts an image in every phase that sees it,
of two sets the first's; ``phases`` tells all this of each. ``--curve`` writes resident memory against images seen, all phases
one after another, and a picture beside it.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from healmap import methods
from healmap.config import override, to_plain
from healmap.errors import HealError
from healmap.methods import weights
from healmap.methods.backbone import IMAGENET
from healmap.methods.base import Method, Optimisers
from healmap.training.allocator import freed_memory_kept
from healmap.training.manifest import peak_mb
from healmap.types import Batch, Needs, Spec

NEWS_EVERY = 30.0  # seconds


def picture(numbers: Sequence[int], spec: Spec, seed: int) -> Tensor:
    """Images of these numbers, (N, C, H, W) in [-1, 1]: a bright disc, blotches of many sizes, noise."""
    h, w = spec.height, spec.width
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    made = []
    for number in numbers:
        chance = torch.Generator().manual_seed(seed * 1_000_003 + number)
        image = torch.sigmoid(20 * (0.8 - (x**2 + y**2).sqrt())).expand(spec.channels, h, w) * 1.2 - 1
        for cells, amount in ((4, 0.15), (16, 0.1), (64, 0.05)):
            noise = torch.randn(1, spec.channels, min(cells, h), min(cells, w), generator=chance)
            image = image + amount * F.interpolate(noise, (h, w), mode="bilinear")[0]
        made.append(image.clamp(-1, 1))
    return torch.stack(made).contiguous(memory_format=torch.channels_last)  # as in training


class Feed(Iterator[Batch]):
    """Batches of new images, ``count`` of them in all or without end. Two sets differ in their numbers."""

    def __init__(self, method: Method, batch: int, count: int | None, seed: int) -> None:
        self.method, self.batch, self.count, self.seed = method, batch, count, seed
        self.seen, self.seconds = 0, 0.0  # spent on pictures

    def __next__(self) -> Batch:
        n = self.batch if self.count is None else min(self.batch, self.count - self.seen)
        if n < 1:
            raise StopIteration
        begun = time.perf_counter()
        numbers, spec, needs = range(self.seen, self.seen + n), self.method.spec, self.method.needs
        self.seen += n
        image = picture(numbers, spec, self.seed)
        masks = torch.zeros(n, spec.height, spec.width, dtype=torch.int64) if needs is Needs.SEGMENTED else None
        two = needs not in (Needs.HEALTHY, Needs.LABELLED)
        batch = Batch(
            image=image,
            label=torch.arange(n) % 2 if needs is Needs.LABELLED else None,
            healthy=picture(numbers, spec, self.seed + 1) if two else None,
            mask=masks,
            healthy_mask=masks,
        )
        self.seconds += time.perf_counter() - begun
        return batch


class Curve:
    """Resident memory while images pass, as rows of a CSV file, and a word now and then."""

    def __init__(self, path: Path | None) -> None:
        self.begun = self.told = time.monotonic()
        self.file = path.open("w", newline="") if path else None
        self.rows = csv.writer(self.file) if self.file else None
        self._write(["phase", "images", "resident_mb", "peak_mb", "seconds"])

    def add(self, phase: str, images: int) -> None:
        now, resident = time.monotonic(), resident_mb()
        self._write([phase, images, resident, peak_mb(), round(now - self.begun, 2)])
        if now - self.told > NEWS_EVERY:
            self.told = now
            print(f"{phase}: {images} images, {resident} MB, {now - self.begun:.0f} s", file=sys.stderr, flush=True)

    def _write(self, row: list[Any]) -> None:
        if self.rows is not None and self.file is not None:
            self.rows.writerow(row)
            self.file.flush()

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


def resident_mb() -> float | None:
    """What the process holds now; its peak where the system does not tell."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) * 1024 / 1e6, 1)
    except OSError:
        pass
    return peak_mb()


def make_weights(name: str, path: str) -> None:
    """Random numbers as a public file holds them, head and all."""
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file({k: v.contiguous() for k, v in IMAGENET[name]().state_dict().items()}, path)


def configured(name: str, backbone: str, file: Path, settings: Sequence[str]) -> Any:
    """The method's default settings with this backbone and these changes (``name=value``)."""
    config = methods.get(name).Config()
    if backbone:
        chosen = [f"backbone.name={backbone}"]
        if backbone in IMAGENET:
            made = multiprocessing.get_context("spawn").Process(target=make_weights, args=(backbone, str(file)))
            made.start()
            made.join()
            if made.exitcode:
                raise SystemExit("the file of random weights could not be made")
            chosen.append(f"backbone.weights={file}")
        config = override(config, chosen)
    return override(config, settings)


@dataclass(frozen=True)
class Learned:
    """What a phase took."""

    phase: str
    images: int
    seconds: float  # by the clock, what happens at its end included
    picture_seconds: float  # of them
    finish_seconds: float  # of them

    def told(self) -> dict[str, Any]:
        return {k: round(v, 2) if isinstance(v, float) else v for k, v in asdict(self).items()}


def learn(method: Method, images: int, batch: int, limit: int | None, seed: int, curve: Curve) -> list[Learned]:
    """All phases: of one pass, ``images`` images; of so many steps, these, or as many as ``limit`` images make."""
    method.train()
    done: list[Learned] = []
    for phase in method.phases():
        one_pass = phase.steps is None
        steps = math.ceil(images / batch) if phase.steps is None else phase.steps
        if limit is not None:
            steps = min(steps, math.ceil(limit / batch))
        feed, before, begun = Feed(method, batch, images if one_pass else None, seed), images_of(done), time.perf_counter()
        optimisers = Optimisers(phase.optimisers)
        for k in range(steps):
            optimisers.scale_lr(phase.lr_scale(k, steps))
            phase.step(feed, k, optimisers)
            curve.add(phase.name, before + feed.seen)
        stepped = time.perf_counter()
        phase.finish()
        ended = time.perf_counter()
        curve.add(f"{phase.name}, finished", before + feed.seen)
        done.append(Learned(phase.name, feed.seen, ended - begun, feed.seconds, ended - stepped))
    method.eval()
    return done


def images_of(done: Sequence[Learned]) -> int:
    return sum(phase.images for phase in done)


@torch.no_grad()
def scoring_rate(method: Method, batch: int, seed: int, turns: int = 3) -> float:
    """Images per second, the best of some turns."""
    image = picture(range(batch), method.spec, seed + 2)
    method.predict(image)
    best = math.inf
    for _ in range(turns):
        begun = time.perf_counter()
        method.predict(image)
        best = min(best, time.perf_counter() - begun)
    return batch / best


def measure(args: argparse.Namespace) -> dict[str, Any]:
    images = args.images if args.limit is None else min(args.images, args.limit)
    with tempfile.TemporaryDirectory() as folder, freed_memory_kept():  # the latter as in training
        settings = list(args.set)
        settings += [f"d={args.d}"] * (args.d is not None) + [f"dtype={args.dtype}"] * bool(args.dtype)
        config = configured(args.method, args.backbone, Path(folder) / "weights.safetensors", settings)
        torch.manual_seed(args.seed)
        method = methods.get(args.method)(config, Spec(args.channels, args.size, args.size))
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        remarks = method.check_data(args.images)
        begun, curve = time.perf_counter(), Curve(args.curve)
        done = learn(method, images, args.batch, args.limit, args.seed, curve)
        fitted = time.perf_counter()
        seen, drawn = images_of(done), sum(phase.picture_seconds for phase in done)
        file = weights.save(method, Path(folder) / "last.safetensors", {})
        saved, fit_peak = time.perf_counter(), peak_mb()
        rate = scoring_rate(method, args.score_batch, args.seed)
        curve.add("scoring", seen + args.score_batch)
        curve.close()
        plain = to_plain(config)
        if any(f.name == "backbone" for f in fields(config)):
            plain = to_plain(replace(config, backbone=replace(config.backbone, weights="")))
        return {
            "method": args.method,
            "backbone": args.backbone,
            "settings": plain,
            "size": args.size,
            "images": args.images,
            "images_seen": seen,
            "batch": args.batch,
            "remarks": remarks,
            "peak_mb": peak_mb(),
            "peak_until_saved_mb": fit_peak,
            "weights_mb": round(file.stat().st_size / 1e6, 1),
            "seconds": round(fitted - begun, 2),
            "picture_seconds": round(drawn, 2),
            "save_seconds": round(saved - fitted, 2),
            "phases": [phase.told() for phase in done],
            "images_per_s": round(seen / (fitted - begun - drawn), 3),
            "scored_images_per_s": round(rate, 3),
            "machine": {
                "processor": platform.machine(),
                "threads": torch.get_num_threads(),
                "capability": torch.backends.cpu.get_cpu_capability(),
                "torch": torch.__version__,
            },
            "date": time.strftime("%Y-%m-%d"),
        }


def draw(curve: Path, title: str) -> Path:
    """The picture of a curve's CSV file, beside it."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with curve.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["phase"] != "scoring"]
    figure, axes = pyplot.subplots(figsize=(6, 3), layout="constrained")
    for name, column in (("resident", "resident_mb"), ("peak so far", "peak_mb")):
        axes.plot([int(row["images"]) for row in rows], [float(row[column]) for row in rows], label=name, linewidth=1)
    top = 1.15 * max(float(row["peak_mb"]) for row in rows)
    axes.set(xlabel="images seen", ylabel="memory of the process, MB", title=title, xlim=(0, None), ylim=(0, top))
    axes.legend(loc="lower right", frameon=False)
    out = curve.with_suffix(".png")
    figure.savefig(out, dpi=100)
    return out


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=methods.names(), metavar="METHOD")
    parser.add_argument("--backbone", default="", help="of methods that have one; its weights are random numbers")
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--channels", type=int, default=1)
    parser.add_argument("--limit", type=int, help="stop after so many images")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--score-batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--d", type=int, help="--set d=...")
    parser.add_argument("--dtype", choices=["float64", "float32"], help="--set dtype=...")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the method")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--curve", type=Path, help="write memory against images there (CSV), and a picture beside it")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    for path in (args.json, args.curve):
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
    try:
        found = measure(args)
    except HealError as error:
        raise SystemExit(f"error: {error}") from None
    print(json.dumps(found, indent=2))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    if args.curve:
        title = f"{args.method}, {args.backbone}, {args.size} x {args.size}" if args.backbone else args.method
        draw(args.curve, title)


if __name__ == "__main__":
    main()
