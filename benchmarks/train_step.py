"""How fast one training step is: images/s, GFLOP/s and share of this machine's own matrix-product peak.

    python benchmarks/train_step.py                                     # all methods, fp32 and bf16
    python benchmarks/train_step.py --methods stargan --published FOLDER --markdown table.md --json table.json

FOLDER holds another project's program (``published_steps.py`` tells which are known), which then computes its training step in
fp32 in turns with ours. One turn is a full cycle: as many steps as it takes for every network to move, in the middle of the
longest phase. An image counts each time a step draws it; one of each set, where a method takes two, count as one. Times
are the best and the median over the turns: a machine that others use still gives a fair picture.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from published_steps import Contestant, Setting, published
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from healmap import methods
from healmap.errors import ConfigError
from healmap.methods.base import Method, Optimisers
from healmap.training.allocator import freed_memory_kept
from healmap.types import Batch, Needs, Spec

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
# Settings with which a method computes what its published program does, where the defaults are something else.
AS_PUBLISHED: dict[str, dict[str, Any]] = {"descargan": {"losses": "released"}}


@dataclass
class Row:
    program: str
    method: str
    size: int
    width: int | None
    batch: int
    precision: str
    images_per_s: float  # best turn
    images_per_s_median: float
    gflop_per_s: float
    peak_share: float
    gflop_per_image: float
    times_published: float | None = None


def peak(dtype: torch.dtype, setting: Setting) -> float:
    """FLOP/s of the fastest matrix product found, plain or as a 1 x 1 convolution, which another library computes."""
    best = 0.0
    for n in (1024, 2048):
        a, b = torch.randn(2, n, n, device=setting.device).to(dtype)
        x, w = a.view(32, 8, n // 256, n).permute(0, 3, 1, 2), b.view(n, n, 1, 1)  # rows as pixels of 32 images
        for product in (lambda a=a, b=b: a @ b, lambda x=x, w=w: F.conv2d(x, w)):
            for _ in range(6):
                best = max(best, 2 * n**3 / setting.timed(product))
    return best


def clock(name: str, device: str) -> Callable[[], float]:
    """Seconds, once the device has done what it was given."""
    if device != "cuda":
        return CLOCKS[name]

    def now() -> float:
        torch.cuda.synchronize()
        return CLOCKS[name]()

    return now


def batch_for(method: Method, setting: Setting) -> Batch:
    spec, n = method.spec, setting.batch

    def images() -> Tensor:
        return setting.images().contiguous(memory_format=torch.channels_last)

    def masks() -> Tensor:
        return torch.randint(0, 2, (n, spec.height, spec.width), device=setting.device)

    return Batch(
        image=images(),
        label=torch.arange(n, device=setting.device) % 2 if method.needs is Needs.LABELLED else None,
        healthy=images() if method.needs not in (Needs.HEALTHY, Needs.LABELLED) else None,
        mask=masks() if method.needs is Needs.SEGMENTED else None,
        healthy_mask=masks() if method.needs is Needs.SEGMENTED else None,
    )


class Counting(Optimisers):
    """Notes which optimisers have moved since it was last asked."""

    moved: frozenset[str] = frozenset()

    def descend(self, name: str, loss: Any) -> None:
        super().descend(name, loss)
        self.moved |= {name}

    def all_moved(self) -> bool:
        done = self.moved == self.optimisers.keys()
        if done:
            self.moved = frozenset()
        return done


class Feed:
    """The same batch for ever, counted."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.drawn = batch, 0

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self.drawn += 1
        return self.batch


def widths(config: Any, width: int) -> dict[str, int]:
    """The setting ``width``, and ``critic_width`` in proportion, for methods that know them."""
    known = {f.name for f in fields(config)} & {"width", "critic_width"}
    return {k: max(1, getattr(config, k) * width // config.width) for k in known} if width and "width" in known else {}


def ours(name: str, precision: str, setting: Setting, compiled: bool = False, **settings: Any) -> Contestant:
    cls = methods.get(name)
    config = cls.Config(**settings)
    config = replace(config, **widths(config, setting.width))
    torch.manual_seed(0)
    method = cls(config, Spec(setting.channels, setting.size, setting.size)).to(setting.device)  # type: ignore[call-arg]
    method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    phase = max(method.phases(), key=lambda p: p.steps or 0)
    optimisers, feed = Counting(phase.optimisers), Feed(batch_for(method, setting))
    step = torch.compile(phase.step) if compiled else phase.step
    n_critic = getattr(config, "n_critic", 1)
    k = (phase.steps or 0) // 2 // n_critic * n_critic  # where a cycle begins

    def run() -> None:
        nonlocal k
        while True:
            # As in training: cast weights are not kept, since they change within a step.
            with torch.autocast(setting.device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
                step(feed, k, optimisers)
            k += 1
            if optimisers.all_moved():
                break

    def cycle() -> float:
        with freed_memory_kept():  # as in training
            return setting.timed(run)

    cycle()
    program = ", ".join(["healmap", *(f"{k}={v}" for k, v in settings.items())])
    return Contestant(program, name, precision, getattr(config, "width", None), feed.drawn * setting.batch, cycle)


class Untracked(nullcontext[None]):
    """In place of the counter's module tracker, whose hooks do not bear a gradient taken within a step."""

    parents = frozenset({"Global"})


def count_flops(work: Callable[[], object]) -> int:
    """Operations of all matrix products and convolutions in ``work``, forward and backward."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()  # type: ignore[assignment]
    with counter:
        work()
    return counter.get_total_flops()


def measure(contestants: list[Contestant], turns: int, setting: Setting, peaks: dict[str, float]) -> list[Row]:
    """All contestants in turns."""
    flops: dict[int, int] = {}
    seconds: dict[int, list[float]] = {id(c): [] for c in contestants}
    for c in contestants:
        flops[id(c)] = count_flops(c.cycle)  # also warms up
    for _ in range(turns):
        for c in contestants:
            seconds[id(c)].append(c.cycle())
    rows = []
    for c in contestants:
        best, median = min(seconds[id(c)]), statistics.median(seconds[id(c)])
        rate = flops[id(c)] / best
        rows.append(
            Row(
                c.program, c.method, setting.size, c.width, setting.batch, c.precision, c.images / best, c.images / median,
                rate / 1e9, rate / peaks[c.precision], flops[id(c)] / c.images / 1e9,
            )
        )  # fmt: skip
    return rows


def compare(rows: list[Row]) -> None:
    theirs = {r.method: r.images_per_s for r in rows if r.program.startswith("published")}
    for r in rows:
        if r.program.startswith("healmap") and r.method in theirs:
            r.times_published = r.images_per_s / theirs[r.method]


def markdown(rows: list[Row], peaks: dict[str, float], device: str, clock: str) -> str:
    head = "| program | method | size | width | batch | precision | images/s | median | GFLOP/s | of peak | times published |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        times = "" if r.times_published is None else f"{r.times_published:.2f}"
        lines.append(
            f"| {r.program} | {r.method} | {r.size} | {r.width or ''} | {r.batch} | {r.precision} | {r.images_per_s:.3g} | "
            f"{r.images_per_s_median:.3g} | {r.gflop_per_s:.0f} | {r.peak_share:.0%} | {times} |"
        )
    found = ", ".join(f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in peaks.items())
    note = f"Matrix-product peak measured on this machine ({machine(device)}): {found}."
    if clock == "processor":
        note += " Rates are per second of processor time."
    return "\n".join([*lines, "", note, ""])


def machine(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    capability = torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {capability}, torch {torch.__version__}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", default=methods.names(), metavar="NAME")
    parser.add_argument("--precisions", nargs="*", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=64, help="channels of the first layer, critics in proportion; 0: defaults")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=int, default=3, help="3 as published programs, which know nothing else")
    parser.add_argument("--turns", type=int, default=3, help="timed cycles of each")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="processor: for a busy machine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile our step")
    parser.add_argument("--published", type=Path, nargs="*", default=[], metavar="FOLDER", help="see published_steps.py")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args(argv)
    if args.clock == "processor" and args.threads != 1:
        parser.error("--clock processor needs --threads 1: waiting threads would count as work")
    if args.threads:
        torch.set_num_threads(args.threads)
    setting = Setting(args.size, args.width, args.batch, args.channels, args.device, clock(args.clock, args.device))
    peaks = {name: peak(PRECISIONS[name], setting) for name in {*args.precisions, "fp32"}}
    rows: list[Row] = []
    theirs = [published(folder, setting) for folder in args.published]
    for name in args.methods:
        # Memory for one method at a time; the published program of that method takes turns with ours.
        turn = [c for c in theirs if c.method == name]
        variants: list[dict[str, Any]] = [{}, AS_PUBLISHED[name]] if turn and name in AS_PUBLISHED else [{}]
        try:
            turn += [ours(name, p, setting, args.compile, **variant) for variant in variants for p in args.precisions]
        except ConfigError as error:  # PaDiM and PatchCore want a backbone's weights; see fit.py
            print(f"{name}: {error}", file=sys.stderr)
            continue
        rows += measure(turn, args.turns, setting, peaks)
        theirs = [c for c in theirs if c.method != name]
        del turn
        gc.collect()
    compare(rows)
    table = markdown(rows, peaks, args.device, args.clock)
    print(table)
    if args.markdown:
        args.markdown.write_text(table)
    if args.json:
        plain = {"machine": machine(args.device), "peak_gflop_per_s": {k: v / 1e9 for k, v in peaks.items()}}
        args.json.write_text(json.dumps(plain | {"rows": [asdict(r) for r in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
