"""Several processes: one gradient, one set of weights, one run folder, and a resume that is exact for both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import toys

SCRIPT = Path(__file__).with_name("parallel.py")


def together(name: str, data: Path, out: Path, stop: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), name, str(data), str(out), str(stop)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fixed-point-gan", "alad"])  # alad: batch norms, spectral norms, a weight average
def test_two_processes(name: str, data: Path, tmp_path: Path) -> None:
    toys.phantoms(data)
    whole = together(name, data, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    log = (tmp_path / "whole" / "log.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in log] == ["step", "5", "6"]
    stopped = together(name, data, tmp_path / "stopped", stop=3)
    assert "the state is saved" in stopped.stderr
    resumed = together(name, data, tmp_path / "stopped")
    assert resumed.returncode == 0, resumed.stderr
    assert toys.digests(tmp_path / "stopped") == toys.digests(tmp_path / "whole")
