"""Dice before and after small components are removed: the best threshold's Dice bounds the first, not the second."""

from __future__ import annotations

import numpy as np

from healmap.evaluation.collect import Collector, Seen
from healmap.evaluation.figures import Resampler, pixel_figures


def test_specks_cost_dice_until_they_are_removed() -> None:
    rng = np.random.default_rng(0)
    collected = Collector(0.5, np.array([0.5]), min_area=10)
    for k in range(6):
        mask = np.zeros((32, 32), dtype=bool)
        mask[8:16, 8:16] = True
        anomaly_map = np.where(mask, 0.8, 0.0).astype(np.float32)
        rows, columns = rng.integers(20, 32, 12), rng.integers(0, 32, 12)
        anomaly_map[rows, columns] = 0.9  # brighter than the lesion: no threshold keeps one and drops the others
        collected.add(Seen(f"{k}", f"{k}", f"p{k}", None, "diseased", 1.0), anomaly_map, mask)
    figures = pixel_figures(collected, Resampler([f"p{k}" for k in range(6)], 20, 0))
    dice, best, cleaned = (figures[name].value for name in ("dice", "dice_best", "dice_cleaned"))
    assert dice is not None
    assert best is not None
    assert cleaned is not None
    assert dice <= best + 1e-9
    assert best < 0.95
    assert cleaned > 0.99
