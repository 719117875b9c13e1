"""benchmarks/segmenters.py: which images each Dice is taken on."""

from __future__ import annotations

import importlib.util
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from healmap.metrics.overlap import Overlap
from healmap.types import Domains, Prediction
from tests.conftest import ROOT


@pytest.fixture
def segmenters(monkeypatch):
    spec = importlib.util.spec_from_file_location("segmenters", ROOT / "benchmarks" / "segmenters.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "segmenters", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Inverter:
    """Domain 0 shows structures bright, domain 1 dark; translation inverts, and each segmenter knows its own domain."""

    spec = SimpleNamespace(domains=Domains(("bright", "dark")))

    def translate_to(self, x, label):
        return -x

    def predict(self, x):
        return Prediction(x.mean((1, 2, 3)), maps={"segmentation_0": (x > 0).float(), "segmentation_1": (x < 0).float()})


class Squares:
    """Six images with a square, three of each domain; one has no mask."""

    def __init__(self):
        self.shape = np.zeros((4, 4), bool)
        self.shape[:2, :2] = True

    def __len__(self):
        return 6

    def labels(self):
        return np.array([0, 0, 0, 1, 1, 1])

    def mask(self, i):
        return None if i == 5 else self.shape

    def images(self, chosen):
        one = np.where(self.shape, 1.0, -1.0).astype(np.float32)
        return np.stack([one[None] if i < 3 else -one[None] for i in chosen])


def test_dice_of_each_segmenter_on_each_kind_of_image(segmenters):
    rows = segmenters.measure(Inverter(), Squares(), torch.device("cpu"), batch_size=2)
    found = [(r.segmenter, r.images, r.from_domain, r.n, r.dice) for r in rows]
    assert found == [
        ("bright", segmenters.REAL, "bright", 3, 1.0),
        ("bright", segmenters.TRANSLATED, "dark", 2, 1.0),
        ("bright", segmenters.UNTRANSLATED, "dark", 2, 0.0),
        ("dark", segmenters.REAL, "dark", 2, 1.0),
        ("dark", segmenters.TRANSLATED, "bright", 3, 1.0),
        ("dark", segmenters.UNTRANSLATED, "bright", 3, 0.0),
    ]
    assert segmenters.markdown(rows).count("\n") == 7


def test_pixels_are_pooled_and_images_averaged(segmenters):
    row = segmenters.row("a", "x", "b", [Overlap(8, 0, 0, 2), Overlap(0, 0, 2, 8), Overlap(0, 4, 0, 6)])
    assert row.dice == pytest.approx(2 * 8 / (16 + 4 + 2))
    assert row.dice_per_image == pytest.approx((1 + 0) / 2), "an image without anything to mark has no Dice of its own"
    assert segmenters.row("a", "x", "b", [Overlap(0, 1, 0, 1)]).dice_per_image is None
