"""benchmarks/backbones.py: every figure is taken on images whose truth is known, by default of the validation split."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from healmap import api
from healmap.types import DISEASED, HEALTHY, UNKNOWN, Prediction
from tests.conftest import ROOT


@pytest.fixture
def backbones(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("backbones")


class Brightness:
    """Map: the image. Score: its mean."""

    def predict(self, image: torch.Tensor) -> Prediction:
        return Prediction(image.mean((1, 2, 3)), image)


class Few:
    """Images of 2 x 2 pixels: (label, pixels, mask)."""

    def __init__(self, *cases: tuple[str, Sequence[float], Sequence[int] | None]) -> None:
        self.cases, self.items = cases, [SimpleNamespace(label=label) for label, *_ in cases]

    def __len__(self) -> int:
        return len(self.cases)

    def images(self, chosen: Sequence[int]) -> Any:
        return np.array([self.cases[i][1] for i in chosen], np.float32).reshape(-1, 1, 2, 2)

    def mask(self, i: int) -> Any:
        mask = self.cases[i][2]
        return None if mask is None else np.array(mask, bool).reshape(2, 2)


HEALTH, LESION = (HEALTHY, (0.1, 0.1, 0.1, 0.2), (0, 0, 0, 0)), (DISEASED, (0.1, 0.1, 0.9, 0.1), (0, 0, 1, 0))


def test_what_is_not_known_is_not_judged(backbones: ModuleType) -> None:
    assert backbones.measure(Brightness(), Few(HEALTH, LESION)) == (1.0, 1.0)
    bright = (1.0, 1.0, 1.0, 1.0)
    assert backbones.measure(Brightness(), Few(HEALTH, LESION, (DISEASED, bright, None))) == (1.0, 1.0), "no mask: not healthy"
    assert backbones.measure(Brightness(), Few(HEALTH, LESION, (UNKNOWN, bright, None))) == (1.0, 1.0), "unknown: not healthy"
    auroc, ap = backbones.measure(Brightness(), Few((HEALTHY, bright, (0, 0, 0, 0)), LESION))
    assert (auroc, ap) == (0.0, pytest.approx(1 / 5)), "known to be healthy: counts"


def test_it_answers_for_the_validation_split(
    backbones: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    api.make_phantoms(tmp_path / "data", patients=12, size=32, seed=0)
    monkeypatch.setattr(backbones, "ROWS", ("filters", "self, restoration"))
    words = ["--data", str(tmp_path / "data"), "--size", "32", "--steps", "2", "--width", "8"]
    backbones.main([*words, "--json", str(tmp_path / "rows.json")])
    text = capsys.readouterr().out
    assert "split val\n" in text
    assert text.count("| PaDiM |") == text.count("| PatchCore |") == 2
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(r["backbone"], r["method"]) for r in rows[:3]] == [
        ("filters", "PaDiM"), ("filters", "PatchCore"), ("self, restoration", "PaDiM"),
    ]  # fmt: skip
    monkeypatch.setattr(backbones, "ROWS", ())
    backbones.main([*words, "--split", "test"])
    assert "split test\n" in capsys.readouterr().out
