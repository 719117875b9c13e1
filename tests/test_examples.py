"""The programs in ``examples/`` run as they stand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import toys

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_a_loop_of_ones_own(tmp_path: Path) -> None:
    data, out = toys.phantoms(tmp_path / "phantoms"), tmp_path / "own.pt"
    command = [sys.executable, EXAMPLES / "own_loop.py", data / "labels.csv", "--steps", "2", "--size", "32", "--width", "4",
               "--out", out]  # fmt: skip
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert out.stat().st_size > 1000
    assert said.stdout.splitlines()[0].startswith("0 {'unet.")
    assert len(said.stdout.splitlines()) == 5
