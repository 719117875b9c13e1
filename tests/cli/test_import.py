"""``healmap import``: from a published program's files to predictions, figures and a report; wrong files in one line."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from healmap import methods
from healmap.cli.main import main
from healmap.data.phantoms import make_phantoms
from healmap.methods import published


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("phantoms")
    make_phantoms(out, patients=24, size=32, seed=0)
    return out


def files(program: str, folder: Path, channels: int = 1) -> dict[str, Path]:
    """Networks of a few channels, with random numbers, as the program saves them."""
    cls = methods.get(program)
    config, spec = cls.tiny()
    torch.manual_seed(0)
    method = cls(config, replace(spec, channels=channels))
    found = {}
    for role, network in published.get(program).networks.items():
        found[role] = folder / network.saved_as.replace("…", "200000")
        torch.save(getattr(method, network.attribute).state_dict(), found[role])
    return found


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    made = files("fixed-point-gan", folder, channels=3)
    words = ["import", "fixed-point-gan", made["generator"], "--critic", made["critic"], "-o", folder / "run"]
    assert main([*map(str, words), "--domains", "healthy,diseased"]) == 0
    return folder / "run"


def test_predict_with_imported_weights(run: Path, phantoms: Path, tmp_path: Path) -> None:
    assert main(["predict", str(run), "-i", str(phantoms / "images"), "-o", str(tmp_path / "out"), "--device", "cpu"]) == 0
    rows = list(csv.DictReader((tmp_path / "out" / "scores.csv").open()))
    assert len(rows) == len(list((phantoms / "images").rglob("*.png")))
    assert all(0 < float(row["score"]) <= 1 for row in rows)
    assert list((tmp_path / "out" / "healed").rglob("*.png"))


def test_evaluate_with_imported_weights(run: Path, phantoms: Path, tmp_path: Path) -> None:
    words = ["evaluate", run, "--data", phantoms, "--split", "test", "-o", tmp_path, "--bootstrap", "10", "--device", "cpu"]
    assert main(list(map(str, words))) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 <= found["image"]["auroc"]["value"] <= 1
    assert any("weights imported from" in note for note in found["protocol"]["notes"])
    assert "imported" in (tmp_path / "report.html").read_text()
    assert (run / "weights" / "thresholds.json").is_file()


def test_the_settings_of_an_import_train_anew(run: Path, phantoms: Path, tmp_path: Path) -> None:
    words = ["train", "-c", run / "experiment.json", "--data", phantoms, "--out", tmp_path / "new", "--steps", "2", "--quiet"]
    assert main(list(map(str, words))) == 0
    again = ["train", "-c", run / "experiment.json", "--data", phantoms, "--out", run, "--resume", "--quiet"]
    assert main(list(map(str, again))) == 2


def test_what_was_read_and_what_is_untrained_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = files("cyclegan", tmp_path)
    words = ["import", "cyclegan", made["generator"], "-o", tmp_path / "run", "--size", "32", "--set", "method.pool=2"]
    assert main(list(map(str, words))) == 0
    said = capsys.readouterr().out
    assert "latest_net_G_A.pth" in said
    assert "1 channel, width" in said
    assert "untrained, because no file was given: critic_healthy, to_diseased, critic_diseased" in said
    assert f"next: healmap predict {tmp_path / 'run'}" in said


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["stargan", "absent.ckpt"], 1, "no such file"),
        (["stargan", "200000-D.ckpt", "--size", "32"], 1, "no generator of stargan"),
        (["stargan", "200000-G.ckpt", "--critic", "200000-G.ckpt"], 1, "no critic of stargan"),
        (["stargan", "200000-G.ckpt"], 2, "give --size"),
        (["pix2pix", "200000-G.ckpt"], 2, "no published program"),
        (["stargan", "200000-G.ckpt", "--critic", "200000-D.ckpt", "--attributes", "a,b"], 2, "give 1 different names"),
    ],
)
def test_wrong_imports_end_in_one_line(
    words: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    files("stargan", tmp_path)
    here = [str(tmp_path / word) if word.endswith(".ckpt") else word for word in words]
    assert main(["import", *here, "-o", str(tmp_path / "run")]) == code
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()
