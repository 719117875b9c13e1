"""Golden pictures: a phantom, its overlay and the tiles of a report row look as they did when somebody last looked at them.

HEALMAP_GOLDEN=write renews the pictures beside this file; look at them before they are committed.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from healmap.data.phantoms import make_phantoms
from healmap.detection.overlay import colour_bar, panel
from healmap.report.pictures import difference_tile, map_tile, mask_tile

HERE = Path(__file__).parent
TOP, THRESHOLD = 0.4, 0.1


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A diseased phantom, its healthy twin (both (64, 64) in [0, 1]) and the lesion."""
    out = tmp_path_factory.mktemp("phantoms")
    make_phantoms(out, patients=12, size=64, seed=0)
    row = next(r for r in csv.DictReader((out / "labels.csv").open()) if r["twin"] and r["mask"])
    image, twin = (np.asarray(Image.open(out / row[name]), np.float32) / 255 for name in ("path", "twin"))
    return image, twin, np.asarray(Image.open(out / row["mask"])) > 0


def test_a_phantom_and_what_is_drawn_of_it(case: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    image, twin, lesion = case
    difference = (image - twin).astype(np.float32)
    anomaly_map = np.abs(difference)
    drawn = [
        panel(image, None, None, TOP, (256, 256)),
        panel(image, anomaly_map, anomaly_map >= THRESHOLD, TOP, (256, 256)),
        difference_tile(difference, TOP),
        map_tile(anomaly_map, TOP),
        mask_tile(image, lesion, anomaly_map >= THRESHOLD),
        colour_bar(256, TOP, THRESHOLD),
    ]
    picture = np.concatenate(drawn, axis=1)
    file = HERE / "phantom.png"
    if os.environ.get("HEALMAP_GOLDEN") == "write":
        Image.fromarray(picture).save(file, optimize=True)
    golden = np.asarray(Image.open(file).convert("RGB"))
    assert picture.shape == golden.shape
    far = np.abs(picture.astype(int) - golden.astype(int))
    assert far.mean() < 1.0
    assert np.mean(far > 24) < 0.01
