"""A method that gives no map, and one that gives nothing but a score, from calibration to the report."""

from __future__ import annotations

import csv
from pathlib import Path

import fakes
import numpy as np
import pytest
from fakes import make_run, plane
from PIL import Image as Pil

from healmap.data.dataset import open_dataset
from healmap.detection.batch import predict_many
from healmap.detection.calibrate import calibrate
from healmap.detection.overlay import SMALLEST
from healmap.detection.predictor import Predictor
from healmap.evaluation.evaluate import evaluate_run
from healmap.report import drawings
from healmap.report.comparison import write_comparison
from healmap.report.report import write_report
from healmap.types import Prediction


def mapless(heals: bool) -> type[fakes.Dimmer]:
    """A Dimmer that keeps its map to itself, and its healed image too unless it ``heals``."""

    def predict(self, image):
        found = fakes.Dimmer.__mro__[1].predict(self, image)
        return Prediction(found.score, None, found.healed if heals else None)

    own = {"localises": False, "heals": heals, "predict": predict, "__module__": "fakes"}
    return type("Dimmer", (fakes.Dimmer,), own)


@pytest.fixture(params=[True, False], ids=["heals", "score only"])
def heals(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(fakes, "Dimmer", mapless(request.param))
    return request.param


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["path,label,patient_id,split,mask"]
    for number in range(24):
        split, sick = ("train", "val", "test")[number % 3], number // 3 % 2 == 1
        image, mask = plane(number, lesion=(6, 8, 12) if sick else None), ""
        if sick:
            mask = f"{number}-mask.png"
            Pil.fromarray(((image == 228) * 255).astype(np.uint8)).save(folder / mask)
        Pil.fromarray(image).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{'diseased' if sick else 'healthy'},p{number},{split},{mask}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def test_evaluated_and_reported(heals, data, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", monkeypatch, size=48)
    tree = evaluate_run(run, data, "test", tmp_path / "out", device="cpu", bootstrap=20)
    assert tree["image"]["auroc"]["value"] == 1
    assert tree["image"]["sensitivity"]["value"] == 1  # it was calibrated on the way
    for figure in (*tree["pixel"].values(), *tree["lesion"].values()):
        assert figure["value"] is None
        assert figure["reason"] == "this detector gives no map"
    assert (tree["healthy"]["change"]["value"] is not None) == heals
    for name in ("pixel", "scale"):
        assert "gives no map" in tree["protocol"]["thresholds"][name]["how"]
    assert set(tree["margin"]["threshold"]["image"]) >= {"auroc"}
    assert tree["margin"]["threshold"]["pixel"]["ap"]["value"] is None

    painted = []
    monkeypatch.setattr(drawings, "froc_curves", lambda *a, **k: painted.append("FROC"))
    page = write_report(tmp_path / "out").read_text()
    assert not painted, "a lesion curve of the baseline alone says nothing about the method"
    assert "highest Dice" not in page
    assert "pixels above the threshold" not in page
    assert ("colour scales" in page) == heals
    assert ('alt="difference of' in page) == heals
    assert 'alt="map of' not in page
    assert "lesions found at 1 FP per image" in page

    both = write_comparison({"a": tmp_path / "out", "b": tmp_path / "out"}, tmp_path / "both.html").read_text()
    assert ("colour scales of a" in both) == heals


def test_predicted(heals, data, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", monkeypatch, size=48)
    predictor = Predictor.load(run, device="cpu")
    val = open_dataset(data, "val", predictor.data, predictor.preprocessing)
    thresholds = calibrate(run, val, device="cpu")
    assert thresholds.pixel.value is None
    assert thresholds.image.value is not None
    predict_many(Predictor.load(run, device="cpu"), data / "3.png", tmp_path / "out")
    made = {p.relative_to(tmp_path / "out").parts[0] for p in (tmp_path / "out").rglob("*.png")}
    assert made == ({"overlays", "healed"} if heals else {"overlays"})
    with open(tmp_path / "out" / "scores.csv", newline="") as file:
        assert [row["call"] for row in csv.DictReader(file)] == ["diseased"]
    drawn = np.asarray(Pil.open(tmp_path / "out" / "overlays" / "3.png"))
    height, width = drawn.shape[:2]
    assert height >= SMALLEST
    if heals:  # input, and the healed plane without the lesion
        left, right = drawn[:, : width // 2], drawn[:, width // 2 :]
        assert int(left.max()) > int(right.max())
    else:
        assert width < height, "the plane is not drawn twice"


def test_a_volume(heals, tmp_path, monkeypatch):
    nib = pytest.importorskip("nibabel")
    run = make_run(tmp_path / "run", monkeypatch, size=48)
    planes = [plane(k, lesion=(6, 8, 12) if k == 3 else None) for k in range(5)]
    scan = nib.Nifti1Image(np.stack(planes, axis=2), np.diag([1.0, 1.0, 2.0, 1.0]))
    nib.save(scan, tmp_path / "scan.nii.gz")
    predictor = Predictor.load(run, device="cpu")
    found = predictor.predict(tmp_path / "scan.nii.gz")
    assert max(found.slices, key=lambda s: s[1])[0] == 3
    assert found.anomaly_map is None
    assert found.mask is None
    assert found.findings == ()
    assert (found.healed is not None) == heals
    counts = predict_many(predictor, tmp_path / "scan.nii.gz", tmp_path / "out")
    assert counts == {"done": 1, "failed": 0, "slices": 5}
    made = {p.relative_to(tmp_path / "out").parts[0] for p in (tmp_path / "out").rglob("*.*")}
    assert made == ({"overlays", "healed", "scores.csv"} if heals else {"overlays", "scores.csv"})
