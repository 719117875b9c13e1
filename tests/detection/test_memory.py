"""Prediction streams: the peak of memory does not depend on how many images there are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pil

from healmap import methods
from healmap.data.preprocess import Preprocessing
from healmap.detection.thresholds import Threshold, Thresholds, save_thresholds
from healmap.experiment import DataConfig
from healmap.io.hashing import sha256_file
from healmap.methods import weights

CODE = """
import sys
from healmap.detection.batch import predict_many
from healmap.detection.predictor import Predictor
counts = predict_many(Predictor.load(sys.argv[1], device="cpu"), sys.argv[2], sys.argv[3])
# ru_maxrss would begin at the peak of the process that started this one, and hide a growth below it.
print(counts["done"], next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peaks(folder: Path, few: int, many: int) -> tuple[float, float]:
    """Peak megabytes of predicting ``few`` and ``many`` small images, each in a process of its own."""
    cls = methods.get("restoration")
    config, spec = cls.tiny()
    torch.manual_seed(0)
    method = cls(config, spec)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    path = folder / "run" / "weights" / "best.safetensors"
    data = DataConfig(size=spec.height, channels=spec.channels)
    weights.save(method, path, {"preprocessing": Preprocessing(data).to_plain()})
    thresholds = Thresholds(image=Threshold(value=0.1), pixel=Threshold(value=0.1), weights_sha256=sha256_file(path))
    save_thresholds(thresholds, folder / "run")
    (folder / "in").mkdir()
    rng, found = np.random.default_rng(0), []
    for count, before in ((few, 0), (many, few)):
        for number in range(before, count):
            Pil.fromarray(rng.integers(0, 255, (64, 64)).astype(np.uint8)).save(folder / "in" / f"{number:05d}.png")
        command = [sys.executable, "-c", CODE, str(folder / "run"), str(folder / "in"), str(folder / f"out{count}")]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        done, kilobytes = result.stdout.split()
        assert int(done) == count
        found.append(int(kilobytes) / 1024)
    return found[0], found[1]


def test_memory_of_predict_is_flat(tmp_path: Path) -> None:
    few, many = peaks(tmp_path, 20, 100)
    assert many - few < 25, (few, many)


@pytest.mark.slow
def test_memory_of_two_thousand_images_is_that_of_two_hundred(tmp_path: Path) -> None:
    few, many = peaks(tmp_path, 200, 2000)
    assert many - few < 50, (few, many)
