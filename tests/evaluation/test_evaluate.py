from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import make_run, plane
from PIL import Image as Pil
from sklearn.metrics import average_precision_score, roc_auc_score

from healmap.data.table import read_table
from healmap.detection.predictor import Predictor
from healmap.errors import CheckpointError, UsageError
from healmap.evaluation.collect import Collector, Seen
from healmap.evaluation.evaluate import evaluate_run
from healmap.evaluation.figures import Resampler, image_figures, patient_figures
from healmap.types import SPLITS


def write_data(folder: Path, *, masks: bool = True, splits: tuple[str, ...] = SPLITS, patients: int = 6) -> Path:
    """Two images per patient; every second patient is diseased, with a lesion that Dimmer sees, in one of them only weakly."""
    folder.mkdir()
    rows, number = ["path,label,patient_id,split,mask"], 0
    for split in splits:
        for p in range(patients):
            for k in range(2):
                number += 1
                sick = p % 2 == 1
                image = plane(number, lesion=(6 + 3 * k, 8 + 2 * p, 12) if sick else None)
                mask = ""
                if sick:
                    truth = image == 228
                    if split == "test" and p == 1:
                        image[truth] = 120  # below the middle: missed
                    if masks:
                        mask = f"masks/{number}.png"
                        (folder / "masks").mkdir(exist_ok=True)
                        Pil.fromarray((truth * 255).astype(np.uint8)).save(folder / mask)
                elif k:
                    image[40, 5] = 150  # a speck: a false alarm of the map
                Pil.fromarray(image).save(folder / f"{number}.png")
                rows.append(f"{number}.png,{'diseased' if sick else 'healthy'},{split}{p},{split},{mask}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_run(tmp_path / "run", monkeypatch, size=48)


def figures(tree: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for name, value in tree.items():
        if name != "protocol" and isinstance(value, dict):
            found += [value] if "value" in value else figures(value)
    return found


def test_figures_agree_with_a_computation_over_all_pixels(run: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    tree = evaluate_run(run, data, "test", tmp_path / "out", device="cpu", bootstrap=50)
    predictor = Predictor.load(run, device="cpu")
    assert predictor.thresholds.pixel.value is not None  # calibrated on the way
    maps, truths, scores, labels, dices = [], [], [], [], []
    for row in read_table(data).rows:
        if row.split == "test":
            got = predictor.predict(data / row.path)
            truth = np.asarray(Pil.open(data / row.mask)) > 0 if row.mask else np.zeros((48, 40), bool)
            assert got.anomaly_map is not None
            assert got.mask is not None
            maps.append(got.anomaly_map)
            truths.append(truth)
            scores.append(got.score)
            labels.append(row.label == "diseased")
            if truth.any():
                dices.append(2 * (got.mask & truth).sum() / (got.mask.sum() + truth.sum()))
    values, truth = np.concatenate(maps).ravel(), np.concatenate(truths).ravel()
    called = values >= predictor.thresholds.pixel.value
    assert tree["image"]["auroc"]["value"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert tree["image"]["ap"]["value"] == pytest.approx(average_precision_score(labels, scores), abs=1e-9)
    assert tree["image"]["auroc"]["n"] == 12
    assert tree["pixel"]["auroc"]["value"] == pytest.approx(roc_auc_score(truth, values), abs=1e-3)
    assert tree["pixel"]["ap"]["value"] == pytest.approx(average_precision_score(truth, values), abs=1e-3)
    dice = 2 * (called & truth).sum() / (called.sum() + truth.sum())
    assert tree["pixel"]["dice"]["value"] == pytest.approx(dice, abs=1e-9)
    assert tree["pixel"]["iou"]["value"] == pytest.approx(dice / (2 - dice), abs=1e-9)
    assert tree["pixel"]["dice_per_slice"]["value"] == pytest.approx(np.mean(dices), abs=1e-9)
    assert tree["pixel"]["dice_per_slice"]["n"] == 6
    assert tree["pixel"]["dice_best"]["value"] >= dice
    assert tree["lesion"]["sensitivity_at_1fp"]["value"] == pytest.approx(4 / 6)
    assert tree["healthy"]["change"]["value"] < 0.001
    low, high = tree["image"]["auroc"]["ci95"]
    assert low <= tree["image"]["auroc"]["value"] <= high


def test_files_hold_what_was_returned(run: Path, tmp_path: Path) -> None:
    data, out = write_data(tmp_path / "data"), tmp_path / "out"
    tree = evaluate_run(run, data, "test", out, device="cpu", bootstrap=30)
    stored = json.loads((out / "metrics.json").read_text())
    assert stored["pixel"] == tree["pixel"]
    for figure in figures(stored):
        assert set(figure) >= {"value", "ci95", "n"}
        assert figure["value"] is not None or figure["reason"]
    for path in ("image.auroc", "image.ap", "pixel.auroc", "pixel.ap", "pixel.dice", "pixel.dice_best", "pixel.dice_per_slice",
                 "lesion.sensitivity_at_1fp", "healthy.change", "baseline.threshold.image.auroc", "baseline.threshold.pixel.ap",
                 "baseline.thumbnail.image.auroc", "margin.thumbnail.image.auroc", "paper.image.accuracy"):  # fmt: skip
        node = stored
        for key in path.split("."):
            node = node[key]
        assert node["value"] is not None, path
    with open(out / "scores.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert {row["call"] for row in rows} == {"healthy", "diseased"}
    assert all(float(row["baseline_threshold"]) >= 0 and row["baseline_thumbnail"] for row in rows)
    assert stored["protocol"]["weights"]["sha256"] == Predictor.load(run).weights_sha256
    assert stored["protocol"]["evaluated"] == {"images": 12, "labelled": 12, "patients": 6, "annotated": 12}


def test_bootstrap_repeats(run: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    first = evaluate_run(run, data, "test", tmp_path / "a", device="cpu", bootstrap=40)
    again = evaluate_run(run, data, "test", tmp_path / "b", device="cpu", bootstrap=40)
    assert [f["ci95"] for f in figures(first)] == [f["ci95"] for f in figures(again)]


def test_without_masks_pixel_figures_say_why(run: Path, tmp_path: Path) -> None:
    tree = evaluate_run(run, write_data(tmp_path / "data", masks=False), "test", tmp_path / "out", device="cpu", bootstrap=20)
    assert tree["pixel"]["ap"] == {"value": None, "ci95": None, "n": 6, "reason": "no diseased image is annotated"}
    assert tree["pixel"]["dice"]["value"] is None
    assert tree["lesion"]["sensitivity_at_1fp"]["value"] is None
    assert tree["image"]["auroc"]["value"] is not None


def test_a_split_alone_gives_what_it_can(run: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", splits=("test",))
    tree = evaluate_run(run, data, "test", tmp_path / "out", device="cpu", bootstrap=20)
    assert tree["pixel"]["dice"]["reason"] == "no pixel threshold: validation data are missing"
    assert tree["pixel"]["dice_best"]["value"] > 0.5
    assert tree["image"]["sensitivity"]["value"] is None
    assert tree["baseline"]["thumbnail"]["image"]["auroc"]["reason"] == "the data have no train split"
    assert any("could not be checked" in note for note in tree["protocol"]["notes"])


def test_one_class_gives_no_auroc(run: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", patients=1)
    tree = evaluate_run(run, data, "test", tmp_path / "out", device="cpu", bootstrap=20, baselines=False)
    assert tree["image"]["auroc"]["value"] is None
    assert tree["image"]["auroc"]["reason"] == "needs healthy and diseased images"
    assert tree["image"]["specificity"]["value"] is not None
    assert tree["image"]["specificity"]["ci95"] is None  # one patient has no spread
    assert "baseline" not in tree


def test_shared_patients_are_refused(run: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    table = (data / "labels.csv").read_text().replace(",test1,", ",train1,")
    (data / "labels.csv").write_text(table)
    with pytest.raises(UsageError, match="train1"):
        evaluate_run(run, data, "test", tmp_path / "out", device="cpu")
    with pytest.raises(UsageError, match="no row belongs to split"):
        evaluate_run(run, write_data(tmp_path / "other", splits=("train",)), "test", tmp_path / "out", device="cpu")


def test_healing_is_measured_against_known_twins(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = ["path,label,patient_id,split,twin"]
    for k in range(4):
        image = plane(k, lesion=(8, 8, 12), shape=(48, 48))
        twin = np.where(image == 228, 127.5, image).round().astype(np.uint8)  # what Dimmer makes of it
        Pil.fromarray(image).save(data / f"{k}.png")
        Pil.fromarray(twin).save(data / f"twin{k}.png")
        Pil.fromarray(twin).save(data / f"healthy{k}.png")
        rows += [f"{k}.png,diseased,p{k},test,twin{k}.png", f"healthy{k}.png,healthy,p{k},test,"]
    (data / "labels.csv").write_text("\n".join(rows) + "\n")
    tree = evaluate_run(run, data, "test", tmp_path / "out", device="cpu", bootstrap=20)
    twin_tree = tree["twin"]
    assert twin_tree["mse"]["n"] == 4
    assert twin_tree["mse"]["value"] < 1e-4
    assert twin_tree["mse_untouched"]["value"] == pytest.approx(144 / 48**2 * (100.5 / 127.5) ** 2, rel=0.02)
    assert twin_tree["mse_difference"]["value"] < 1e-3
    assert twin_tree["ssim_difference"]["value"] > 0.99
    assert tree["healthy"]["mse"]["n"] == 4
    assert tree["healthy"]["mse"]["value"] == pytest.approx(0, abs=1e-4)


def test_patients_are_scored_by_the_mean_of_their_images(run: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    tree = evaluate_run(run, data, "test", tmp_path / "out", bootstrap=50)
    with open(tmp_path / "out" / "scores.csv", newline="") as file:
        table = list(csv.DictReader(file))
    scores: dict[str, list[float]] = {}
    for row in table:
        scores.setdefault(row["patient"], []).append(float(row["score"]))
    truth = [int(patient[-1]) % 2 for patient in scores]
    expected = roc_auc_score(truth, [np.mean(v) for v in scores.values()])
    assert tree["patient"]["auroc"]["value"] == pytest.approx(expected)
    assert tree["patient"]["auroc"]["n"] == 6


def test_a_method_that_needs_the_class_sees_diseased_images_only(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_data(tmp_path / "data")
    monkeypatch.setattr(type(Predictor.load(run).method), "class_at_inference", True)
    tree = evaluate_run(run, data, "test", tmp_path / "out", bootstrap=20)
    assert tree["image"]["auroc"]["value"] is None
    assert tree["pixel"]["dice_best"]["value"] is not None
    assert tree["protocol"]["evaluated"]["images"] == 6
    assert any("known to be diseased" in note for note in tree["protocol"]["notes"])
    every = evaluate_run(run, data, "test", tmp_path / "every", bootstrap=20, assume_diseased=True)
    assert every["image"]["auroc"]["value"] is not None
    assert any("outside the method's contract" in note for note in every["protocol"]["notes"])


def test_a_resample_without_healthy_patients_proves_nothing() -> None:
    """Of three patients with one healthy the resamples without it would give any detector an average precision of 1."""
    collector = Collector(None, None, 0)
    scores = {"healthy": 0.9, "diseased": 0.1}  # the wrong way round: AP is at most 2 / 3 wherever there is one to find
    for patient, label in (("a", "healthy"), ("b", "diseased"), ("c", "diseased")):
        collector.seen.append(Seen(patient, patient, patient, None, label, scores[label]))
    draw = Resampler(["a", "b", "c"], 400)
    for tree in (image_figures(collector, draw, called=False), patient_figures(collector, draw)):
        assert tree["ap"].value == pytest.approx(2 / 3)
        without = draw.weights[:, 0] == 0
        assert without.any()
        assert np.isnan(tree["ap"].samples[without]).all()
        assert tree["ap"].ci95[1] < 0.8


def test_a_card_that_contradicts_itself_is_refused(run: Path) -> None:
    card = run / "weights" / "best.json"
    plain = json.loads(card.read_text())
    plain["preprocessing"]["settings"]["channels"] = 3
    card.write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match="takes images of 1 x 48 x 48, its card prepares 3 x 48 x 48"):
        Predictor.load(run, device="cpu")
