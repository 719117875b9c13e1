"""How fast one training step is: images/s, GFLOP/s and share of this machine's own matrix-product peak.

    python benchmarks/train_step.py                                     # all methods, fp32 and bf16
    python benchmarks/train_step.py --methods stargan --published FOLDER --markdown table.md --json table.json

FOLDER holds another project's model.py and solver.py (StarGAN's or HealthyGAN's). Its own ``Solver.train`` is then driven, in
turns with ours, on the same batch; it computes in fp32 as released. One turn is a full cycle: n_critic critic updates and one
of the generator. Times are the best and the median over the turns: a machine that others use still gives a fair picture.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import inspect
import io
import json
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from healmap import methods
from healmap.methods.base import Method, Optimisers
from healmap.training.allocator import freed_memory_kept
from healmap.types import Batch, Needs, Spec

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
CLOCK = [time.perf_counter]  # the one chosen
NEVER = 10**9  # a step that a cycle does not reach
STUBS = ("torchvision", "torchvision.utils", "tqdm", "pandas")  # imported by published solvers, not needed for a step


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


@dataclass
class Contestant:
    """Something whose cycle can be run and timed. ``cycle`` returns the seconds it took."""

    program: str
    method: str
    precision: str
    width: int | None
    images: int  # per cycle
    cycle: Callable[[], float]


def peak(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of the fastest matrix product found, plain or as a 1 x 1 convolution, which another library computes."""
    best = 0.0
    for n in (1024, 2048):
        a, b = torch.randn(2, n, n, device=device).to(dtype)
        x, w = a.view(32, 8, n // 256, n).permute(0, 3, 1, 2), b.view(n, n, 1, 1)  # rows as pixels of 32 images
        for product in (lambda a=a, b=b: a @ b, lambda x=x, w=w: F.conv2d(x, w)):
            for _ in range(6):
                best = max(best, 2 * n**3 / timed(product, device))
    return best


def timed(work: Callable[[], object], device: str) -> float:
    synchronise(device)
    start = CLOCK[0]()
    work()
    synchronise(device)
    return CLOCK[0]() - start


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def batch_for(method: Method, n: int, device: str, memory_format: torch.memory_format) -> Batch:
    spec = method.spec

    def images() -> torch.Tensor:
        x = torch.rand(n, spec.channels, spec.height, spec.width, device=device) * 2 - 1
        return x.contiguous(memory_format=memory_format)

    def masks() -> torch.Tensor:
        return torch.randint(0, 2, (n, spec.height, spec.width), device=device)

    return Batch(
        image=images(),
        label=torch.arange(n, device=device) % 2 if method.needs is Needs.LABELLED else None,
        healthy=images() if method.needs not in (Needs.HEALTHY, Needs.LABELLED) else None,
        mask=masks() if method.needs is Needs.SEGMENTED else None,
        healthy_mask=masks() if method.needs is Needs.SEGMENTED else None,
    )


def ours(name: str, precision: str, args: argparse.Namespace) -> Contestant:
    cls = methods.get(name)
    config, known = cls.Config(), {f.name for f in fields(cls.Config)}  # type: ignore[arg-type]
    config = replace(config, **{k: args.width for k in ("width", "critic_width") if k in known and args.width})
    torch.manual_seed(0)
    layout = torch.channels_last
    method = cls(config, Spec(args.channels, args.size, args.size)).to(args.device).to(memory_format=layout)  # type: ignore[call-overload]
    phase = method.phases()[0]
    optimisers, batches = Optimisers(phase.optimisers), repeat(batch_for(method, args.batch, args.device, layout))
    steps, width = getattr(config, "n_critic", 1), getattr(config, "width", None)
    step = torch.compile(phase.step) if args.compile else phase.step

    def run() -> None:
        for k in range(steps):
            # As in training: cast weights are not kept, since they change within a step.
            with torch.autocast(args.device, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
                step(batches, k, optimisers)

    def cycle() -> float:
        with freed_memory_kept():  # as in training
            return timed(run, args.device)

    return Contestant("healmap", name, precision, width, steps * args.batch, cycle)


class Feed:
    """A data loader for a published solver: the same batch for ever; notes when the first step of a cycle begins."""

    def __init__(self, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.batch, self.asked, self.began = batch, 0, 0.0

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        self.asked = 0
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked += 1
        if self.asked == 2:  # the first batch is kept for the solver's sample pictures
            self.began = CLOCK[0]()
        return self.batch


def published(folder: Path, args: argparse.Namespace) -> Contestant:
    """The other project's own training loop, driven for one cycle at a time."""
    solver_class, width = load_solver(folder), args.width or 64
    star = "celeba_loader" in inspect.signature(solver_class.__init__).parameters
    name, n_critic = ("stargan", 5) if star else ("healthygan", 2)
    torch.manual_seed(0)
    image = torch.rand(2, args.batch, args.channels, args.size, args.size) * 2 - 1
    label = (torch.arange(args.batch) % 2).float()[:, None]
    feed = Feed((image[0], label if star else image[1]))
    config = types.SimpleNamespace(
        dataset="CelebA" if star else "Covid", image_size=args.size, batch_size=args.batch, selected_attrs=["diseased"],
        g_conv_dim=width, d_conv_dim=width, g_repeat_num=6, d_repeat_num=6, c_dim=1, c2_dim=0,
        lambda_cls=1, lambda_rec=10 if star else 1, lambda_gp=10, lambda_id=1,
        lambda_mask=0.1, lambda_msmall=1, lambda_mzerone=1, mask_loss_mode="sum",
        num_iters=n_critic, num_iters_decay=0, n_critic=n_critic, g_lr=1e-4, d_lr=1e-4, beta1=0.5, beta2=0.999,
        resume_iters=None, test_iters=None, use_tensorboard=False,
        log_dir="", sample_dir="", model_save_dir="", result_dir="",
        log_step=NEVER, sample_step=NEVER, model_save_step=NEVER, lr_update_step=NEVER,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        solver = solver_class(feed, None, config) if star else solver_class(feed, config)

    def cycle() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            solver.train()
        synchronise(args.device)
        return CLOCK[0]() - feed.began

    return Contestant(f"published ({folder.name})", name, "fp32", width, n_critic * args.batch, cycle)


def load_solver(folder: Path) -> Any:
    """The class Solver of FOLDER/solver.py. Modules it imports but a step does not use are replaced while it is imported."""
    if not (folder / "solver.py").is_file() or not (folder / "model.py").is_file():
        raise SystemExit(f"{folder}: no model.py and solver.py there")
    before = set(sys.modules)
    absent = [name for name in STUBS if importlib.util.find_spec(name.split(".")[0]) is None]
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        for word in ("save_image", "tqdm"):
            setattr(sys.modules[name], word, None)
    sys.path.insert(0, str(folder.resolve()))
    try:
        return importlib.import_module("solver").Solver
    finally:
        sys.path.pop(0)
        for name in {*absent, "solver", "model", "logger"} & (set(sys.modules) - before):
            del sys.modules[name]


class Untracked(contextlib.nullcontext[None]):
    """In place of the counter's module tracker, whose hooks do not bear a gradient taken within a step."""

    parents = frozenset({"Global"})


def count_flops(work: Callable[[], object]) -> int:
    """Operations of all matrix products and convolutions in ``work``, forward and backward."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()  # type: ignore[assignment]
    with counter:
        work()
    return counter.get_total_flops()


def measure(contestants: list[Contestant], args: argparse.Namespace, peaks: dict[str, float]) -> list[Row]:
    """All contestants in turns."""
    flops, seconds = {}, {id(c): [] for c in contestants}
    for c in contestants:
        flops[id(c)] = count_flops(c.cycle)  # also warms up
    for _ in range(args.turns):
        for c in contestants:
            seconds[id(c)].append(c.cycle())
    rows = []
    for c in contestants:
        best, median = min(seconds[id(c)]), statistics.median(seconds[id(c)])
        rate = flops[id(c)] / best
        rows.append(
            Row(
                c.program, c.method, args.size, c.width, args.batch, c.precision, c.images / best, c.images / median,
                rate / 1e9, rate / peaks[c.precision], flops[id(c)] / c.images / 1e9,
            )
        )  # fmt: skip
    return rows


def compare(rows: list[Row]) -> None:
    theirs = {r.method: r.images_per_s for r in rows if r.program != "healmap"}
    for r in rows:
        if r.program == "healmap" and r.method in theirs:
            r.times_published = r.images_per_s / theirs[r.method]


def markdown(rows: list[Row], peaks: dict[str, float], device: str) -> str:
    head = "| program | method | size | width | batch | precision | images/s | median | GFLOP/s | of peak | times published |"
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in rows:
        times = "" if r.times_published is None else f"{r.times_published:.2f}"
        lines.append(
            f"| {r.program} | {r.method} | {r.size} | {r.width or ''} | {r.batch} | {r.precision} | {r.images_per_s:.2f} | "
            f"{r.images_per_s_median:.2f} | {r.gflop_per_s:.0f} | {r.peak_share:.0%} | {times} |"
        )
    found = ", ".join(f"{name} {value / 1e9:.0f} GFLOP/s" for name, value in peaks.items())
    note = f"Matrix-product peak measured on this machine ({machine(device)}): {found}."
    if CLOCK[0] is time.process_time:
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
    parser.add_argument("--width", type=int, default=64, help="first layer's channels; 0: each method's own default")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--channels", type=int, default=3, help="3 as published programs, which know nothing else")
    parser.add_argument("--turns", type=int, default=3, help="timed cycles of each")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall", help="processor: for a busy machine")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile our step")
    parser.add_argument("--published", type=Path, nargs="*", default=[], metavar="FOLDER", help="with model.py and solver.py")
    parser.add_argument("--markdown", type=Path, help="write the table there")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args(argv)
    if args.clock == "processor" and args.threads != 1:
        parser.error("--clock processor needs --threads 1: waiting threads would count as work")
    CLOCK[0] = CLOCKS[args.clock]
    if args.threads:
        torch.set_num_threads(args.threads)
    peaks = {name: peak(PRECISIONS[name], args.device) for name in {*args.precisions, "fp32"}}
    rows: list[Row] = []
    theirs = [published(folder, args) for folder in args.published]
    for name in args.methods:
        # Memory for one method at a time; the published program of that method takes turns with ours.
        turn = [c for c in theirs if c.method == name] + [ours(name, p, args) for p in args.precisions]
        rows += measure(turn, args, peaks)
        theirs = [c for c in theirs if c.method != name]
        del turn
        gc.collect()
    compare(rows)
    table = markdown(rows, peaks, args.device)
    print(table)
    if args.markdown:
        args.markdown.write_text(table)
    if args.json:
        plain = {"machine": machine(args.device), "peak_gflop_per_s": {k: v / 1e9 for k, v in peaks.items()}}
        args.json.write_text(json.dumps(plain | {"rows": [asdict(r) for r in rows]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
