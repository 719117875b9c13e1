from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import make_run, plane
from PIL import Image as Pil

from healmap.data.dataset import Dataset, open_dataset
from healmap.detection.calibrate import calibrate, quantile
from healmap.detection.predictor import Predictor
from healmap.experiment import DetectionConfig


def dataset(folder: Path, predictor: Predictor, *, diseased: bool, masks: bool) -> Dataset:
    folder.mkdir()
    rows = ["path,label,patient_id,split,mask"]
    for k in range(8):
        sick = diseased and k % 2 == 1
        lesion = (10, 10, 12) if sick else None
        image = plane(k, lesion=lesion)
        if not sick:
            image[0, 0] = 128 + 4 * k  # a healthy image has its own highest score
        Pil.fromarray(image).save(folder / f"{k}.png")
        mask = ""
        if sick and masks:
            mask = f"m{k}.png"
            Pil.fromarray(((image == 228) * 255).astype(np.uint8)).save(folder / mask)
        rows.append(f"{k}.png,{'diseased' if sick else 'healthy'},p{k},val,{mask}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return open_dataset(folder, "val", predictor.preprocessing.config, predictor.preprocessing)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    detection = DetectionConfig(healthy_quantile=0.75, pixel_quantile=0.99)
    return make_run(tmp_path / "run", monkeypatch, size=48, detection=detection)


def test_with_masks_both_thresholds_come_from_labels(run: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(run, device="cpu")
    found = calibrate(run, dataset(tmp_path / "data", predictor, diseased=True, masks=True), device="cpu")
    assert found.image.how == "best F1 on the validation images"
    assert found.image.n == {"healthy": 4, "diseased": 4}
    assert 0.1 < found.image.value < 0.394  # type: ignore[operator]
    assert found.pixel.n == {"annotated": 4}
    assert 0.03 < found.pixel.value <= 0.3942  # type: ignore[operator]
    assert found.top >= 2 * found.pixel.value  # type: ignore[operator]
    assert list(found.sweep) == sorted(found.sweep, reverse=True)
    assert found.pixel.value in found.sweep
    got = Predictor.load(run, device="cpu").predict(plane(3, lesion=(10, 10, 12)))
    assert got.call is True
    assert got.mask is not None
    assert abs(int(got.mask.sum()) - 144) < 30
    plain = json.loads((run / "weights" / "thresholds.json").read_text())
    assert plain["weights_sha256"] == predictor.weights_sha256
    assert plain["image"]["value"] == found.image.value


def test_healthy_images_alone_give_quantiles(run: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(run, device="cpu")
    found = calibrate(run, dataset(tmp_path / "data", predictor, diseased=False, masks=False), device="cpu")
    assert found.image.how == "0.75 quantile of the healthy validation images"
    scores = [predictor.predict(tmp_path / "data" / f"{k}.png").score for k in range(8)]
    assert sum(s >= found.image.value for s in scores) == 2  # type: ignore[operator]
    assert "pixels of healthy" in found.pixel.how


def test_quantile_of_counts() -> None:
    values = np.array([0.0, 1.0, 2.0])
    assert quantile(values, np.array([50.0, 40.0, 10.0]), 0.5) == 0
    assert quantile(values, np.array([50.0, 40.0, 10.0]), 0.9) == 1
    assert quantile(values, np.array([50.0, 40.0, 10.0]), 1.0) == 2
