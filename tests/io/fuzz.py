"""Mutated image files against the readers: ``python fuzz.py SEEDS START COUNT`` makes and reads files number START and on.

Runs in a process of its own: a crash in native code then shows as a signal, and the last number written says which file it was.
Every file follows from its number and the seed folder, so that a finding can be repeated.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from pathlib import Path

import numpy as np

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF, 0x10000, 0x01000000)
HEAD = 2048  # edits fall here three times out of four: headers decide what a reader does
SLOW = 5.0  # seconds


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Between one and four changes: cuts, deletions, insertions, byte edits, length fields set to extremes, moved blocks."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not out:
            break
        reach = min(len(out), HEAD) if rng.random() < 0.75 else len(out)
        at = int(rng.integers(reach))
        span = int(rng.integers(1, 65))
        kind = rng.integers(8)
        if kind == 0:
            del out[max(int(rng.integers(len(out))), 1) :]  # anywhere: headers survive more often
        elif kind == 1:
            del out[at : at + span]
        elif kind == 2:
            out[at:at] = rng.integers(0, 256, span, dtype=np.uint8).tobytes()
        elif kind == 3:
            out[at] = int(rng.integers(256))
        elif kind == 4:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 5:
            width = int(rng.choice([2, 4, 8]))
            value = int(rng.choice(EXTREMES)) & (2 ** (8 * width) - 1)
            out[at : at + width] = value.to_bytes(width, "little" if rng.random() < 0.5 else "big")
        elif kind == 6:
            block = out[at : at + span]
            to = int(rng.integers(len(out)))
            out[to : to + len(block)] = block
        else:
            out[at : at + span] = rng.integers(0, 256, min(span, len(out) - at), dtype=np.uint8).tobytes()
    return bytes(out)


def disguise(data: bytes, rng: np.random.Generator) -> bytes:
    """A mutant; half of the time under intact checksums or compression, which would otherwise stop most of them at the door."""
    deeper = rng.random() < 0.5
    if deeper and data.startswith(b"\x1f\x8b"):
        return gzip.compress(mutate(gzip.decompress(data), rng), 1)
    if deeper and data.startswith(b"\x89PNG"):
        return repaired(mutate(data, rng))
    deflated = data.find(b"1.2.840.10008.1.2.1.99")
    if deeper and 132 <= deflated < 400:
        start = 144 + int.from_bytes(data[140:144], "little")
        inner = zlib.decompress(data[start:], -15)
        packer = zlib.compressobj(1, wbits=-15)
        return data[:start] + packer.compress(mutate(inner, rng)) + packer.flush()
    return mutate(data, rng)


def repaired(png: bytes) -> bytes:
    """The same with right checksums in the chunks that can still be found."""
    out, at = bytearray(png), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = zlib.crc32(out[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(out)


def run(seeds: Path, start: int, count: int) -> dict:

    from healmap.errors import HealError
    from healmap.io import get_plane, read_image

    files = sorted(seeds.iterdir())
    outcomes: Counter[str] = Counter()
    findings = []
    longest = 0.0
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for number in range(start, start + count):
            rng = np.random.default_rng(number)
            source = files[number % len(files)]
            path = Path(folder, "image" + source.suffix)
            path.write_bytes(disguise(source.read_bytes(), rng))
            print(number, flush=True)
            began = time.monotonic()
            try:
                image = read_image(path)
                get_plane(image, 0)
                outcomes["read"] += 1
            except HealError as error:
                outcomes[type(error).__name__] += 1
                outcomes["native decoder crashed"] += "decoder crashed" in str(error)
                if "Canary" in str(error) or "\n" in str(error):
                    findings.append([number, source.name, f"leaks or breaks the line: {error}"])
            except BaseException:
                findings.append([number, source.name, traceback.format_exc()[-1500:]])
            seconds = time.monotonic() - began
            longest = max(longest, seconds)
            if seconds > SLOW:
                findings.append([number, source.name, f"took {seconds:.1f} s"])
    # ru_maxrss would begin at the peak of the process that started this one.
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) // 1024
    return {"outcomes": dict(outcomes), "findings": findings, "longest": longest, "peak_mb": peak}


if __name__ == "__main__":
    report = run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
    print("REPORT " + json.dumps(report))
