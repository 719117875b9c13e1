"""benchmarks/descargan_table1.py: its arguments, its table, and how it goes on where it stopped."""

from __future__ import annotations

import importlib.util
import json

import pytest

from healmap.errors import Interrupted, UsageError
from tests.conftest import ROOT


@pytest.fixture
def script():
    spec = importlib.util.spec_from_file_location("descargan_table1", ROOT / "benchmarks" / "descargan_table1.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def finish(run, steps, **figures):
    tree = {"pixel": {}, "twin": {}, "healthy": {}, "image": {"auroc": {"value": None}}}
    for name, value in figures.items():
        group, _, key = name.partition("__")
        tree[group][key] = {"value": value}
    (run / "test").mkdir(parents=True)
    (run / "test" / "metrics.json").write_text(json.dumps(tree))
    (run / "manifest.json").write_text(json.dumps({"finished": {"steps": steps}}))


def test_arguments(script, tmp_path, capsys):
    args = script.parse([str(tmp_path), "--minutes", "2.5"])
    assert (args.minutes, args.steps, args.size, tuple(args.counts)) == (2.5, None, 256, (2000, 200, 200))
    assert tuple(args.methods) == ("descargan", "fixed-point-gan", "stargan")
    for wrong in ([], ["--minutes", "1", "--steps", "5"], ["--steps", "5", "--variants", "unfair"]):
        with pytest.raises(SystemExit):
            script.parse([str(tmp_path), *wrong])
    assert "usage" in capsys.readouterr().err


def test_table(script, tmp_path):
    finish(tmp_path / "fair-descargan", 12345, pixel__dice_per_slice=0.8126, twin__mse_difference=0.00861, healthy__mse=None)
    lines = script.table(tmp_path, ["fair"], ["descargan", "stargan"]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| DeScarGAN | paper | | 0.853 | 0.988 | 0.0086 | 0.954 | 0.0018 |  |" in lines
    assert lines[-2] == "| descargan | fair | 12,345 | 0.813 | – | 0.0086 | – | – | – |"
    assert lines[-1].startswith("| stargan | fair | not finished |")


def test_goes_on_where_it_stopped(script, tmp_path, monkeypatch, capsys):
    """Fixed-Point GAN lacks data, StarGAN is stopped: the first run is not repeated, the others are asked for again."""
    asked, made = [], []

    def make(folder, **settings):
        made.append((folder.name, settings["variant"], settings["size"]))
        folder.mkdir()
        (folder / "labels.csv").touch()

    def train(name, data, run, **settings):
        asked.append((name, settings["steps"], settings["resume"]))
        if name == "fixed-point-gan":
            raise UsageError("no images")
        if name == "stargan":
            raise Interrupted("stopped")

    monkeypatch.setattr(script.api, "make_ellipses", make)
    monkeypatch.setattr(script.api, "train", train)
    monkeypatch.setattr(script.api, "evaluate", lambda run, data, out, **settings: finish(run, 7))
    arguments = [str(tmp_path), "--steps", "7", "--size", "64", "--variants", "fair", "published"]
    assert script.main(arguments) == Interrupted.exit_code
    assert asked == [("descargan", 7, True), ("fixed-point-gan", 7, True), ("stargan", 7, True)]
    assert made == [("ellipses-fair", "fair", 64)]
    assert "fair fixed-point-gan: no images" in capsys.readouterr().err
    script.main(arguments)
    assert [name for name, _, _ in asked[3:]] == ["fixed-point-gan", "stargan"]
    assert "| descargan | fair | 7 |" in (tmp_path / "table1.md").read_text()
