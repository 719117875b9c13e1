"""Phases one after the other: what is asked of a method, and when."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fakes
import pytest
import torch
import toys
from test_run import rows

from healmap import methods
from healmap.methods.base import Losses, Optimisers, Phase
from healmap.training import loop, train_run
from healmap.training.loop import Loop
from healmap.types import Batch, Prediction, Spec


class Census(fakes.Dimmer):
    """Counts the images of one pass, then learns for a while what it counted; before that it has no answer."""

    def __init__(self, config: Any, spec: Spec) -> None:
        super().__init__(config, spec)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def observe(self, batches: Iterator[Batch], k: int, optimisers: Optimisers) -> Mapping[str, Losses]:
        self.seen += len(next(batches).image)
        return {}

    def close(self) -> None:
        self.count.copy_(self.seen)

    def phases(self) -> list[Phase]:
        learn = Phase(name="learn", step=self.observe, steps=self.config.steps)
        return [Phase(name="count", step=self.observe, steps=None, ready=False, finish=self.close), learn]

    def predict(self, image: torch.Tensor) -> Prediction:
        assert bool(self.count > 0), "asked before the count was closed"
        return super().predict(image)


class LastCensus(Census):
    """The count alone."""

    def phases(self) -> list[Phase]:
        return super().phases()[:1]


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "healmap.methods.test_phases", sys.modules[__name__])
    monkeypatch.setitem(methods.METHODS, "census", ("test_phases", "Census"))
    monkeypatch.setitem(methods.METHODS, "last-census", ("test_phases", "LastCensus"))


def test_nothing_is_asked_before_a_phase_is_ready(data: Path, tmp_path: Path) -> None:
    toy = toys.toy("census", data, steps=4, sample_every=2)
    out = train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True)
    assert {r["phase"] for r in rows(out) if r["val.auroc"]} == {"learn"}


def test_a_phase_is_finished_before_the_last_validation(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = toys.toy("last-census", data, sample_every=1)
    out = train_run(toy.experiment, toy.train, toy.val, tmp_path / "whole", quiet=True)
    assert len([r for r in rows(out) if r["val.auroc"]]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_stop_wanted", lambda self, stop: "a test" if self.position.done == 2 else "")
        with pytest.raises(loop.Interrupted):
            train_run(toy.experiment, toy.train, toy.val, tmp_path / "halves", quiet=True)
    train_run(toy.experiment, toy.train, toy.val, tmp_path / "halves", quiet=True, resume=True)
    assert toys.digests(tmp_path / "halves") == toys.digests(out)
    counted = methods.weights.load(out / "weights" / "last.safetensors")[0].count
    assert counted == sum(item.label == "healthy" for item in toy.train.items)
