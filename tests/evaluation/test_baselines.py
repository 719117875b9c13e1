"""The trivial baselines, where data are few."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from fakes import plane
from PIL import Image as Pil

from healmap.data.dataset import Dataset, open_dataset
from healmap.evaluation.baselines import STRENGTHS, ThumbnailBaseline, fit_thumbnails
from healmap.experiment import DataConfig
from healmap.types import DISEASED, HEALTHY


def folder(path: Path, patients: list[str]) -> Dataset:
    """An image for each letter of each patient: h healthy, d diseased."""
    path.mkdir()
    rows = ["path,label,patient_id"]
    for p, letters in enumerate(patients):
        for k, letter in enumerate(letters):
            image = plane(10 * p + k, lesion=(10, 8, 20) if letter == "d" else None)
            Pil.fromarray(image).save(path / f"{p}{k}.png")
            rows.append(f"{p}{k}.png,{'diseased' if letter == 'd' else 'healthy'},p{p}")
    (path / "labels.csv").write_text("\n".join(rows) + "\n")
    return open_dataset(path, None, DataConfig(size=32, normalisation="none"))


@pytest.mark.parametrize(
    ("patients", "searched"),
    [
        (["hd"] * 8, True),
        (["hhd", "h", "d", "h", "d", "h"], True),
        (["h", "h", "d", "d"], True),
        (["hhd", "h"], False),
        (["hd"], False),
    ],
)
def test_few_patients_are_a_matter_of_record_not_of_warnings(tmp_path: Path, patients: list[str], searched: bool) -> None:
    train = folder(tmp_path / "data", patients)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = fit_thumbnails(train)
    assert isinstance(found, ThumbnailBaseline)
    assert found.searched is searched
    assert ("cross-validation" in found.about()["penalty"]) is searched
    assert found.strength in STRENGTHS
    scores: dict[str, list[float]] = {HEALTHY: [], DISEASED: []}
    for k, item in enumerate(train.items):
        scores[str(item.label)].append(found.score(train.image(k)))
    assert min(scores[DISEASED]) > max(scores[HEALTHY])


def test_one_class_has_no_baseline(tmp_path: Path) -> None:
    assert fit_thumbnails(folder(tmp_path / "data", ["hh", "h"])) == "the train split needs healthy and diseased images"
    assert fit_thumbnails(None) == "the data have no train split"
