"""benchmarks/memory.py: what it measures is a real fit, of images that are made anew from their numbers."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
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
    assert [(p["phase"], p["images"]) for p in found["phases"]] == [("observe", 11)]
    rows = list(csv.DictReader((tmp_path / "o.csv").open(newline="")))
    assert [int(row["images"]) for row in rows if row["phase"] == "observe"] == [4, 8, 11]
    assert all(100 < float(row["resident_mb"]) <= float(row["peak_mb"]) <= found["peak_mb"] for row in rows)
    assert (tmp_path / "o.png").read_bytes().startswith(b"\x89PNG")


def test_phases_one_after_another(memory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An encoder that is trained first, then a pass: 2 steps of 4 images, and 6 images."""
    settings = ["--set", "backbone.self_steps=2", "--set", "backbone.self_width=8", "--curve", str(tmp_path / "o.csv")]
    memory.main(["padim", "--backbone", "self", "--images", "6", "--size", "32", "--batch", "4", "--d", "20", *settings])
    found = json.loads(capsys.readouterr().out)
    assert [(p["phase"], p["images"]) for p in found["phases"]] == [("backbone", 8), ("observe", 6)]
    assert found["images_seen"] == 14
    rows = list(csv.DictReader((tmp_path / "o.csv").open(newline="")))
    named = [(row["phase"], int(row["images"])) for row in rows]
    assert named[:-1] == [
        ("backbone", 4), ("backbone", 8), ("backbone, finished", 8),
        ("observe", 12), ("observe", 14), ("observe, finished", 14),
    ]  # fmt: skip
    assert 0 < sum(p["seconds"] for p in found["phases"]) <= found["seconds"] + 0.02, "rounded; the rest: before the first"


def test_making_images_is_no_part_of_a_rate(
    memory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = memory.picture

    def slow(numbers, spec, seed):
        time.sleep(0.2)
        return made(numbers, spec, seed)

    monkeypatch.setattr(memory, "picture", slow)
    memory.main(["padim", "--backbone", "filters", "--images", "6", "--size", "32", "--batch", "3"])
    found = json.loads(capsys.readouterr().out)
    assert 0.4 <= found["picture_seconds"] <= found["seconds"]
    assert found["picture_seconds"] == found["phases"][0]["picture_seconds"]
    assert found["images_per_s"] > 1.1 * found["images_seen"] / found["seconds"]


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
