"""A method whose every answer can be worked out by hand, and a run folder made of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from healmap import methods
from healmap.config import to_plain
from healmap.data.preprocess import Preprocessing
from healmap.experiment import DataConfig, DetectionConfig, Experiment
from healmap.io.atomic import write_json
from healmap.methods import weights
from healmap.methods.base import HealingMethod
from healmap.types import Needs, Prediction, Spec


@dataclass(frozen=True, kw_only=True)
class DimmerConfig:
    steps: int = 1
    score: Literal["mean", "max"] = "max"


class Dimmer(HealingMethod):
    """Whatever is brighter than the middle of the range is diseased: heal(x) = min(x, level), level = 0."""

    needs = Needs.HEALTHY
    title = "Dimmer, for tests"
    Config = DimmerConfig

    def __init__(self, config: Any, spec: Spec) -> None:
        super().__init__(config, spec)
        self.level = nn.Parameter(torch.zeros(()))

    def phases(self) -> list:
        return []

    def heal(self, image: Tensor) -> Tensor:
        return torch.minimum(image, self.level)

    def predict(self, image: Tensor) -> Prediction:
        found = super().predict(image)
        shift = torch.ones(len(image), 2, *image.shape[2:])
        return Prediction(found.score, found.anomaly_map, found.healed, {"displacement": shift})

    @classmethod
    def tiny(cls) -> tuple[Any, Spec]:
        return DimmerConfig(), Spec(1, 32, 32)


def make_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, size: int = 32, detection: DetectionConfig | None = None, **data: Any
) -> Path:
    """A run folder holding a Dimmer. The method is known by the name "dimmer" until the test ends."""
    monkeypatch.setitem(sys.modules, "healmap.methods.fakes", sys.modules[__name__])
    monkeypatch.setitem(methods.METHODS, "dimmer", ("fakes", "Dimmer"))
    config = DataConfig(size=size, **({"normalisation": "none"} | data))
    method = Dimmer(DimmerConfig(), Spec(config.channels, size, size))
    card = {"preprocessing": Preprocessing(config).to_plain(), "detection": to_plain(detection or DetectionConfig()), "step": 1}
    weights.save(method, folder / "weights" / "best.safetensors", card)
    experiment = Experiment(method_name="dimmer", method=method.config, data=config, detection=detection or DetectionConfig())
    write_json(folder / "experiment.json", to_plain(experiment))
    return folder


def plane(seed: int = 0, *, lesion: tuple[int, int, int] | None = None, shape: tuple[int, int] = (48, 40)) -> np.ndarray:
    """A dim uint8 plane, below the middle of the range; ``lesion`` = (row, column, side) is a bright square of 228."""
    image = np.random.default_rng(seed).integers(20, 100, shape).astype(np.uint8)
    if lesion:
        row, column, side = lesion
        image[row : row + side, column : column + side] = 228
    return image
