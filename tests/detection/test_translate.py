"""Translation to named domains, with a method whose answers can be worked out by hand."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from fakes import Dimmer, make_run, plane
from PIL import Image as Pil
from torch import Tensor

from healmap.detection.predictor import Predictor
from healmap.detection.translate import all_targets, target_of, translate_many
from healmap.errors import CapabilityError, UsageError
from healmap.experiment import DataConfig
from healmap.types import Domains, Spec

HAIR = Domains(("black_hair", "blond_hair", "male"), exclusive=False)


def invert(self: Dimmer, image: Tensor, label: Tensor) -> Tensor:
    """Domain 1 is the negative; attributes: every one that holds turns the image once more."""
    turns = label if label.ndim == 1 else label.sum(1)
    return torch.where(turns[:, None, None, None] % 2 == 1, -image, image)


@pytest.fixture
def predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    run = make_run(tmp_path / "run", monkeypatch, normalisation="window", window=(0.0, 255.0))
    monkeypatch.setattr(Dimmer, "reaches", "all")
    monkeypatch.setattr(Dimmer, "translate_to", invert)
    return Predictor.load(run, device="cpu", batch_size=2)


def with_domains(predictor: Predictor, domains: Domains, **data: object) -> Predictor:
    predictor.method.spec = Spec(1, 32, 32, domains)
    predictor.card = {**predictor.card, "data": {**dict(predictor.card.get("data", {})), **data}}
    return predictor


def test_every_image_reaches_its_target(predictor: Predictor, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for label in ("healthy", "diseased"):
        (folder / label).mkdir(parents=True)
        Pil.fromarray(plane(len(label), shape=(32, 32))).save(folder / label / "a.png")
    (folder / "diseased" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "out"
    assert translate_many(predictor, folder, out, ["diseased"]) == {"done": 2, "failed": 1}
    with open(out / "translations.csv", newline="") as file:
        table = {row["path"]: row for row in csv.DictReader(file)}
    assert table["diseased/broken.png"]["error"]
    for name in ("healthy/a.png", "diseased/a.png"):
        given = np.array(Pil.open(folder / name), int)
        got = np.array(Pil.open(out / table[name]["file"]), int)
        assert np.abs(got - (255 - given)).max() <= 1
        assert table[name]["to"] == "diseased"


def test_a_volume_keeps_its_grid(predictor: Predictor, tmp_path: Path) -> None:
    voxels = np.stack([plane(k, shape=(32, 32)) for k in range(3)], axis=2).astype(np.float32)
    affine = np.diag([2.0, 2.0, 5.0, 1.0])
    nib.save(nib.Nifti1Image(voxels, affine), tmp_path / "scan.nii.gz")
    translate_many(predictor, tmp_path / "scan.nii.gz", tmp_path / "out", ["diseased"])
    got = nib.load(tmp_path / "out/translated/scan.nii.gz")
    assert np.array_equal(got.affine, affine)
    np.testing.assert_allclose(np.asarray(got.dataobj), 255 - voxels, atol=1e-2)


def test_own_domain_is_framed(predictor: Predictor, tmp_path: Path) -> None:
    for label in ("healthy", "diseased"):
        (tmp_path / "in" / label).mkdir(parents=True)
        Pil.fromarray(plane(1, shape=(32, 32))).save(tmp_path / "in" / label / "a.png")
    translate_many(predictor, tmp_path / "in", tmp_path / "out", ["healthy"])
    picture = np.array(Pil.open(tmp_path / "out" / "grid.png")).astype(int)
    red = (picture == (214, 40, 40)).all(axis=2)
    rows, columns = np.nonzero(red)
    half = 18 + (picture.shape[0] - 18) // 2  # below the column heads
    # Files come in order: the diseased image first, framed in the last column, then the healthy one, framed in the middle.
    assert columns[rows < half].min() > columns[rows > half].max()


def test_targets_of_attributes(predictor: Predictor) -> None:
    with_domains(predictor, HAIR, exclusive=["black_hair", "blond_hair"])
    assert target_of(predictor, ["black_hair", "male"]).code.tolist() == [1, 0, 1]
    with pytest.raises(UsageError, match="exclude"):
        target_of(predictor, ["black_hair", "blond_hair"])
    config = replace(DataConfig(), exclusive=("black_hair", "blond_hair"))
    own = np.array([1, 0, 1], np.float32)
    found = {t.title: t.code.tolist() for t in all_targets(HAIR, config, own)}
    assert found == {"own": [1, 0, 1], "black_hair": [1, 0, 1], "blond_hair": [0, 1, 1], "male": [1, 0, 0]}


def test_what_cannot_be_reached_is_refused_before_anything_is_written(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Pil.fromarray(plane(1)).save(tmp_path / "a.png")
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="no domain 'ill'") as error:
        translate_many(predictor, tmp_path / "a.png", out, ["ill"])
    assert "healthy, diseased" in error.value.hint
    with pytest.raises(UsageError, match="one domain"):
        translate_many(predictor, tmp_path / "a.png", out, ["healthy", "diseased"])
    monkeypatch.setattr(Dimmer, "reaches", "healthy")
    with pytest.raises(CapabilityError, match="'healthy' only"):
        translate_many(predictor, tmp_path / "a.png", out, ["diseased"])
    monkeypatch.setattr(Dimmer, "reaches", "nothing")
    with pytest.raises(CapabilityError, match="does not translate"):
        translate_many(predictor, tmp_path / "a.png", out, ["healthy"])
    assert not out.exists()
