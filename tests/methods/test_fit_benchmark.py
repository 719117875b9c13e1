"""benchmarks/fit.py: a row for each method and backbone, PatchCore's with its search beside the peak."""

from __future__ import annotations

import importlib
import itertools
import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from healmap.methods.backbone import Backbone
from healmap.methods.neighbours import nearest
from tests.conftest import ROOT

SMALL = ["--size", "32", "--images", "6", "--batch", "4", "--turns", "1"]
SETTINGS = ["--settings", "bank_size=20", "dimensions=16", "chunk=3", "coresets=2"]


@pytest.fixture
def events(monkeypatch):
    """What happened, in order: a clock on which every timed piece of work takes a second, and what it is looked at for."""
    return []


@pytest.fixture
def fit(monkeypatch, events):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("fit")
    ticks, peaks, stages = itertools.count(), itertools.cycle([1e9, 2e9, 1e9, 1e9]), Backbone.stages

    def now():
        events.append("clock")
        return float(next(ticks))

    def peak(dtype, setting):  # the real one takes seconds
        events.append("peak")
        return next(peaks)

    def watched(name, work):
        return lambda *args, **kwargs: (events.append(name), work(*args, **kwargs))[1]

    monkeypatch.setattr(module, "clock", lambda name, device: now)
    monkeypatch.setattr(module, "peak", peak)
    monkeypatch.setattr(module, "nearest", watched("search", module.nearest))
    monkeypatch.setattr(Backbone, "stages", watched("network", stages))
    return module


def test_rows(fit, tmp_path, capsys):
    fit.main([*SMALL, "--backbones", "filters", "resnet18", *SETTINGS, "--json", str(tmp_path / "fit.json")])
    found = json.loads((tmp_path / "fit.json").read_text())
    rows = found["rows"]
    assert [(r["method"], r["backbone"]) for r in rows] == [
        (m, b) for b in ("filters", "resnet18") for m in ("padim", "patchcore")
    ]
    assert found["peak_gflop_per_s"] == 2, "the highest of all, also where another row met a lower one"
    for row in rows:
        # Two steps and the end are a second each.
        assert (row["fit_images_per_s"], row["finish_s"], row["score_images_per_s"]) == (2, 1, 4)
        if row["method"] == "patchcore":
            assert (row["bank"], row["dimensions"]) == (20, 36 if row["backbone"] == "filters" else 16)
            # In a second: 4 images, 16 patches of each 32 x 32 pixels against the bank, two operations a product.
            operations = 4 * 16 * 20 * row["dimensions"] * 2
            assert row["search_images_per_s"] == 4
            assert row["search_gflop_per_s"] == pytest.approx(operations / 1e9)
            assert row["products_gflop_per_s"] == pytest.approx(operations / 1e9)
            assert row["peak_share"] == pytest.approx(operations / 2e9)
    text = capsys.readouterr().out
    assert text.count("| patchcore |") == 2
    assert "matrices with 1024 or 2048 rows: fp32 2 GFLOP/s" in text


def test_nothing_is_timed_the_first_time_and_the_peak_is_of_the_moment(fit, events):
    fit.main([*SMALL, "--methods", "patchcore", "--backbones", "filters", *SETTINGS])
    assert events.index("network") < events.index("clock")
    at = events.index("peak")
    assert events[at:] == ["peak", "clock", "search", "clock", "clock", "clock", "peak"]


def test_without_a_search_no_peak(fit, events, capsys):
    fit.main([*SMALL, "--methods", "padim", "--backbones", "filters"])
    assert "peak" not in events
    assert "GFLOP/s." not in capsys.readouterr().out


@pytest.mark.parametrize(("queries", "entries", "dimensions", "k"), [(7, 20, 5, 1), (600, 2100, 3, 9)])
def test_operations_are_those_of_the_search(fit, queries, entries, dimensions, k):
    patches, bank = torch.randn(queries, dimensions), torch.randn(entries, dimensions)
    with FlopCounterMode(display=False) as counter:
        nearest(patches, bank, k)
    assert fit.search_operations(patches, bank) == counter.get_total_flops()
    with FlopCounterMode(display=False) as alone:
        fit.products(patches, bank)
    assert alone.get_total_flops() == counter.get_total_flops()


def test_the_peak_is_operations_by_seconds(monkeypatch):
    """train_step.peak with a machine that makes 3 GFLOP/s of everything, counted by torch."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    train_step, steps = importlib.import_module("train_step"), importlib.import_module("published_steps")
    sizes = set()

    class Machine(steps.Setting):
        def timed(self, work):
            with FlopCounterMode(display=False) as counter:
                sizes.add(tuple(work().shape))
            return counter.get_total_flops() / 3e9

    setting = Machine(32, 0, 1, 1, "meta", lambda: 0.0)  # shapes without numbers
    assert train_step.peak(torch.float32, setting) == pytest.approx(3e9)
    assert {shape for shape in sizes if len(shape) == 2} == {(1024, 1024), (2048, 2048)}
