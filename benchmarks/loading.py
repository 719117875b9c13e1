"""How fast images come: from files into the cache, from the cache into batches, and how much memory that takes.

python benchmarks/loading.py --data FOLDER --size 96                 # any folder or labels.csv
python benchmarks/loading.py                                         # phantoms, made for the purpose
python benchmarks/loading.py --files 100000 --size 32                # how long a large folder takes to be listed and checked
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pil

from healmap.data.dataset import open_dataset
from healmap.data.loader import Loader
from healmap.data.phantoms import make_phantoms
from healmap.data.table import read_table
from healmap.experiment import DataConfig
from healmap.types import Needs


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def many_files(folder: Path, count: int) -> Path:
    """``count`` different small PNGs in two class folders, 1,000 a patient folder."""
    for k in range(count):
        path = folder / ("healthy" if k % 2 else "diseased") / f"p{k // 1000:03d}" / f"{k:06d}.png"
        if k % 1000 < 2:
            path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(k).integers(0, 256, (16, 16), dtype=np.uint8)
        Pil.fromarray(picture).save(path, compress_level=1)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder or labels.csv; default: phantoms")
    parser.add_argument("--split", default=None)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=400)
    parser.add_argument("--normalisation", default="foreground-median")
    parser.add_argument("--files", type=int, default=0, help="make and use this many small files instead")
    args = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="healmap-loading-"))
    try:
        data = args.data
        if args.files:
            data = many_files(scratch / "files", args.files)
        elif data is None:
            make_phantoms(scratch / "phantoms", size=128)
            data = scratch / "phantoms"
        config = DataConfig(size=args.size, normalisation=args.normalisation, batch_size=args.batch)
        table, listing = timed(lambda: read_table(data))
        print(f"{len(table)} rows listed in {listing:.2f} s ({os.cpu_count()} processors)")
        dataset, cold = timed(lambda: open_dataset(table, args.split, config, cache=scratch / "cache"))
        stored = sum(p.stat().st_size for p in (scratch / "cache").rglob("*.npy")) / 2**20
        rate = len(dataset) / cold
        print(f"{len(dataset)} images decoded into the cache in {cold:.2f} s: {rate:.0f} images/s, {stored:.1f} MiB")
        dataset, warm = timed(lambda: open_dataset(table, args.split, config, cache=scratch / "cache"))
        print(f"opened from the cache in {warm:.2f} s; peak memory {peak_mib():.0f} MiB")
        for needs in (Needs.HEALTHY, Needs.LABELLED):
            for flip, workers in ((False, 0), (True, 0), (True, 1)):
                loader = Loader(dataset, needs, batch_size=args.batch, seed=0, flip=flip, workers=workers)
                stream = loader.forever()
                next(stream)
                _, seconds = timed(lambda stream=stream: sum(len(b.image) for b in itertools.islice(stream, args.batches)))
                rate = args.batches * args.batch / seconds
                print(f"{needs.name:10} flip {flip!s:5} threads {workers}: {rate:8.0f} images/s of {args.size} x {args.size}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
