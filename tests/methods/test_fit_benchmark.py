"""benchmarks/fit.py: a row for each method and backbone, PatchCore's with its search beside the peak."""

from __future__ import annotations

import importlib
import json

import pytest

from tests.conftest import ROOT


@pytest.fixture
def fit(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("fit")
    monkeypatch.setattr(module, "peak", lambda dtype, setting: 1e12)  # the real one takes seconds
    return module


def test_rows(fit, tmp_path, capsys):
    small = ["--size", "32", "--images", "6", "--batch", "4", "--turns", "1", "--backbones", "filters", "resnet18"]
    settings = ["--settings", "bank_size=20", "dimensions=16", "chunk=3", "coresets=2"]
    fit.main([*small, *settings, "--json", str(tmp_path / "fit.json")])
    rows = json.loads((tmp_path / "fit.json").read_text())["rows"]
    assert [(r["method"], r["backbone"]) for r in rows] == [
        (m, b) for b in ("filters", "resnet18") for m in ("padim", "patchcore")
    ]
    for row in rows:
        assert row["fit_images_per_s"] > 0
        assert row["score_images_per_s"] > 0
        if row["method"] == "patchcore":
            assert (row["bank"], row["dimensions"]) == (20, 36 if row["backbone"] == "filters" else 16)
            # 16 patches of 32 x 32 pixels against the bank, two operations a product; the peak was said to be 1e12.
            operations = 2 * 16 * 20 * row["dimensions"]
            assert row["search_gflop_per_s"] == pytest.approx(operations * row["search_images_per_s"] / 1e9)
            assert row["peak_share"] == pytest.approx(row["search_gflop_per_s"] / 1e3)
    assert capsys.readouterr().out.count("| patchcore |") == 2
