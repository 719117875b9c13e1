"""benchmarks/memory.py: what it measures is a real fit, of images that are made anew from their numbers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from healmap.types import Spec

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "benchmarks" / "memory.py"


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import memory

    return memory


def test_a_small_fit_in_figures_and_as_a_curve(tmp_path: Path) -> None:
    options = {
        "--backbone": "resnet18",
        "--images": 50,
        "--limit": 11,
        "--size": 32,
        "--batch": 4,
        "--score-batch": 2,
        "--d": 70,
    }
    arguments = ["padim", *(str(word) for pair in options.items() for word in pair), "--threads", "1"]
    files = ["--json", str(tmp_path / "o.json"), "--curve", str(tmp_path / "o.csv"), "--dtype", "float32"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, SCRIPT, *arguments, *files], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "o.json").read_text())
    assert json.loads(done.stdout) == found
    assert (found["images"], found["images_seen"], found["settings"]["d"], found["settings"]["dtype"]) == (
        50,
        11,
        70,
        "float32",
    )
    assert found["settings"]["backbone"]["weights"] == ""
    assert any("50 healthy images for a covariance of 70" in remark for remark in found["remarks"])
    assert 100 < found["peak_until_saved_mb"] <= found["peak_mb"] < 2000
    assert found["weights_mb"] > 2_782_784 * 4 / 1e6
    assert min(found["seconds"], found["images_per_s"], found["scored_images_per_s"]) > 0
    rows = list(csv.DictReader((tmp_path / "o.csv").open(newline="")))
    assert [int(row["images"]) for row in rows if row["phase"] == "observe"] == [4, 8, 11]
    assert all(100 < float(row["resident_mb"]) <= float(row["peak_mb"]) <= found["peak_mb"] for row in rows)
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")


def test_other_methods_alike(memory, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--set", "bank_size=40", "--set", "dimensions=32", "--set", "projected=8"]
    memory.main(["patchcore", "--backbone", "filters", "--images", "6", "--size", "32", "--batch", "4", *settings])
    found = json.loads(capsys.readouterr().out)
    assert (found["method"], found["images_seen"], found["settings"]["bank_size"]) == ("patchcore", 6, 40)
    with pytest.raises(SystemExit, match="error: too few"):
        memory.main(["padim", "--backbone", "filters", "--images", "1", "--size", "32"])


def test_images_follow_from_their_numbers(memory) -> None:
    spec = Spec(1, 32, 48)
    together = memory.picture(range(3), spec, 0)
    assert together.shape == (3, 1, 32, 48)
    assert float(together.abs().max()) <= 1
    assert torch.equal(memory.picture([2], spec, 0)[0], together[2])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(memory.picture([2], spec, 1)[0], together[2])
