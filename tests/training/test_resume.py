"""A run that was stopped and goes on ends as if it had never been stopped; a resume that forgets something is found out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import toys

from healmap.errors import Interrupted, TrainingError, UsageError, WriteError
from healmap.training import checkpoint, loop, train_run

StopAt = Callable[[int], None]
KILL = Path(__file__).with_name("kill.py")


def run(toy: toys.Toy, out: Path, *, resume: bool = False) -> Path:
    return train_run(toy.experiment, toy.train, toy.val, out, resume=resume, quiet=True)


def stopped(toy: toys.Toy, out: Path, step: int, stop_at: StopAt) -> Path:
    stop_at(step)
    with pytest.raises(Interrupted, match=f"at step {step}, the state is saved") as caught:
        run(toy, out)
    assert caught.value.exit_code == 130
    stop_at(0)
    return out


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 12 steps, with a validation in the middle."""
    return run(toys.toy("restoration", data, steps=12, sample_every=4), tmp_path_factory.mktemp("whole") / "run")


def the_toy(data: Path, **training: object) -> toys.Toy:
    return toys.toy("restoration", data, steps=12, sample_every=4, **training)


@pytest.mark.parametrize("step", [1, 4, 7, 11])
def test_stopped_and_resumed_is_bit_identical(data: Path, tmp_path: Path, whole: Path, stop_at: StopAt, step: int) -> None:
    out = stopped(the_toy(data), tmp_path / "run", step, stop_at)
    run(the_toy(data), out, resume=True)
    assert toys.digests(out) == toys.digests(whole)


def test_stopped_twice_in_bf16_with_clipping_is_bit_identical(data: Path, tmp_path: Path, stop_at: StopAt) -> None:
    toy = toys.toy("fixed-point-gan", data, steps=8, precision="bf16", clip=1.0)
    run(toy, tmp_path / "whole")
    out = stopped(toy, tmp_path / "run", 3, stop_at)
    stop_at(5)
    with pytest.raises(Interrupted):
        run(toy, out, resume=True)
    stop_at(0)
    run(toy, out, resume=True)
    assert toys.digests(out) == toys.digests(tmp_path / "whole")


@pytest.mark.parametrize("part", ["rng", "average", "optimisers", "window", "consumed", "journal"])
def test_a_resume_that_forgets_something_is_found_out(
    data: Path, tmp_path: Path, whole: Path, stop_at: StopAt, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    toy = the_toy(data)
    out = stopped(toy, tmp_path / "run", 7, stop_at)
    complete = loop.Loop.load_state_dict

    def forgetful(self: loop.Loop, state: dict) -> None:
        own = state["processes"][0]
        if part == "consumed":
            state = {**state, "position": {**state["position"], "consumed": 0}}
        elif part == "rng":
            state = {**state, "processes": [{**own, "rng": self.state_dict()["processes"][0]["rng"]}]}
        elif part == "window":
            state = {**state, "window": {"terms": []}, "processes": [{**own, "sums": []}]}
        else:
            state = {**state, part: self.state_dict()[part]}
        complete(self, state)

    monkeypatch.setattr(loop.Loop, "load_state_dict", forgetful)
    run(toy, out, resume=True)
    assert toys.digests(out) != toys.digests(whole)


def test_validation_and_pictures_do_not_disturb_the_training(data: Path, tmp_path: Path, whole: Path) -> None:
    run(toys.toy("restoration", data, steps=12, sample_every=3), tmp_path / "often")
    assert toys.digests(tmp_path / "often")["method"] == toys.digests(whole)["method"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves(
    data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    toy, before = the_toy(data), signal.getsignal(number)
    after_step = loop.Loop._after_step

    def signalled(self: loop.Loop, *arguments: object) -> None:
        if self.position.step == 4:
            os.kill(os.getpid(), number)
        after_step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_after_step", signalled)
        with pytest.raises(Interrupted, match=signal.Signals(number).name):
            run(toy, tmp_path / "run")
    assert signal.getsignal(number) == before
    assert checkpoint.load(tmp_path / "run")["loop"]["position"]["done"] == 5
    run(toy, tmp_path / "run", resume=True)
    assert toys.digests(tmp_path / "run") == toys.digests(whole)


def test_a_damaged_checkpoint_is_passed_over(data: Path, tmp_path: Path, whole: Path, stop_at: StopAt) -> None:
    out = stopped(the_toy(data), tmp_path / "run", 7, stop_at)
    raw = bytearray((out / "state.pt").read_bytes())
    raw[len(raw) // 2] ^= 1
    (out / "state.pt").write_bytes(raw)
    with pytest.warns(RuntimeWarning, match=r"state\.pt.*going on from state\.previous\.pt"):
        run(the_toy(data), out, resume=True)
    assert toys.digests(out) == toys.digests(whole)


def test_other_settings_are_refused_by_name(data: Path, tmp_path: Path, stop_at: StopAt) -> None:
    toy = the_toy(data)
    out = stopped(toy, tmp_path / "run", 7, stop_at)
    other = replace(toy, experiment=toy.experiment.with_(
        method=replace(toy.experiment.method, lr=0.5), training=replace(toy.experiment.training, seed=3)))  # fmt: skip
    with pytest.raises(UsageError, match=r"method\.lr: 0\.001 then, 0\.5 now; training\.seed: 0 then, 3 now"):
        run(other, out, resume=True)
    fewer = replace(toy, train=toy.train.subset(range(20)))
    with pytest.raises(UsageError, match="train data"):
        run(fewer, out, resume=True)
    rarer = replace(toy, experiment=toy.experiment.with_(training=replace(toy.experiment.training, save_every=100)))
    run(rarer, out, resume=True)  # changes no number


def test_other_conditions_are_told(data: Path, tmp_path: Path, stop_at: StopAt, monkeypatch: pytest.MonkeyPatch) -> None:
    out = stopped(the_toy(data), tmp_path / "run", 7, stop_at)
    monkeypatch.setattr("healmap.training.run.versions", lambda: {"torch": "2.99"})
    with pytest.warns(RuntimeWarning, match=r"versions\.torch .* then, 2\.99 now"):
        run(the_toy(data), out, resume=True)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["resumed"][0]["step"] == 7
    assert f"versions.torch {torch.__version__} then, 2.99 now" in manifest["resumed"][0]["changed"]


def test_a_finished_run_stays_as_it_is(data: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("*")}
    toy = the_toy(data)
    assert train_run(toy.experiment, toy.train, toy.val, whole, resume=True) == whole
    assert "finished: 12 steps" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("*")} == before


def test_folders_that_are_not_for_this_run(data: Path, tmp_path: Path, whole: Path) -> None:
    toy = the_toy(data)
    with pytest.raises(UsageError, match=r"not empty.*--resume"):
        run(toy, whole)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").touch()
    with pytest.raises(UsageError, match=r"cat\.png"):
        run(toy, tmp_path / "photos")
    with pytest.raises(UsageError, match="nothing to resume"):
        run(toy, tmp_path / "photos", resume=True)
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["cat.png"]


def test_resume_before_the_first_checkpoint_begins(data: Path, tmp_path: Path, whole: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "experiment.json").write_text("{")  # killed while the folder was being set up
    (tmp_path / "run" / ".healmap-part-0123.pt").write_bytes(b"stale")
    run(the_toy(data), tmp_path / "run", resume=True)
    assert toys.digests(tmp_path / "run") == toys.digests(whole)
    assert not list((tmp_path / "run").glob(".healmap-part-*"))


def test_rows_and_columns_after_the_checkpoint_are_taken_back(data: Path, tmp_path: Path, whole: Path, stop_at: StopAt) -> None:
    out = stopped(the_toy(data), tmp_path / "run", 3, stop_at)
    with (out / "log.csv").open("a") as log:
        log.write("restore,5,0.1,7,7\nrestore,1")  # written after the checkpoint; the last one cut
    run(the_toy(data), out, resume=True)
    assert toys.digests(out) == toys.digests(whole)


def test_a_loss_that_is_not_finite_stops_the_run(
    data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy, seen = the_toy(data), []

    with monkeypatch.context() as patch:
        from healmap.methods.restoration import Restoration

        real = Restoration.loss

        def broken(self: Restoration, *arguments: torch.Tensor) -> object:
            losses = real(self, *arguments)
            seen.append(None)
            return type(losses)({k: v * (float("nan") if len(seen) == 8 else 1) for k, v in losses.items()})

        patch.setattr(Restoration, "loss", broken)
        with pytest.raises(TrainingError, match=r"unet\.\w+ = nan"):
            run(toy, tmp_path / "run")
    assert len(seen) == 8  # within the step
    assert checkpoint.load(tmp_path / "run")["loop"]["position"]["done"] == 6
    run(toy, tmp_path / "run", resume=True)
    assert toys.digests(tmp_path / "run") == toys.digests(whole)


def test_a_broken_state_is_not_saved(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    after_step = loop.Loop._after_step

    def poisoned(self: loop.Loop, *arguments: object) -> None:
        if self.position.step == 7:
            next(self.method.parameters()).data.fill_(float("inf"))  # as an overflowing update would
        after_step(self, *arguments)

    monkeypatch.setattr(loop.Loop, "_after_step", poisoned)
    with pytest.raises(TrainingError, match="not finite"):
        run(the_toy(data), tmp_path / "run")
    assert checkpoint.load(tmp_path / "run")["loop"]["position"]["done"] == 6


def test_disk_full_keeps_the_previous_checkpoint(
    data: Path, tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, calls = checkpoint.save, []

    def on_a_full_disk(folder: Path, state: dict) -> Path:
        calls.append(None)
        if len(calls) != 3:
            return save(folder, state)
        import resource

        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            return save(folder, state)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", on_a_full_disk)
        with pytest.raises(WriteError, match=r"state\.pt.*needs about [\d,]+ bytes"):
            run(the_toy(data), tmp_path / "run")
    assert checkpoint.load(tmp_path / "run")["loop"]["position"]["done"] == 3
    assert not list((tmp_path / "run").rglob(".healmap-part-*"))
    run(the_toy(data), tmp_path / "run", resume=True)
    assert toys.digests(tmp_path / "run") == toys.digests(whole)


def kill(tmp_path: Path, *options: str) -> tuple[int, dict]:
    command = [sys.executable, str(KILL), "--out", str(tmp_path / "kills"), *options]
    answer = subprocess.run(command, capture_output=True, text=True)
    assert answer.stdout, answer.stderr
    return answer.returncode, json.loads(answer.stdout)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    status, found = kill(tmp_path, "--kills", "4", "--steps", "30")
    assert sum(run["kills"] for run in found.values()) == 4
    assert status == 0, found


@pytest.mark.slow
def test_killed_twenty_times_in_fresh_processes(tmp_path: Path) -> None:
    status, found = kill(tmp_path, "--kills", "20", "--fresh")
    assert sum(run["kills"] for run in found.values()) == 20
    assert status == 0, found


@pytest.mark.slow
def test_killed_with_the_random_numbers_forgotten(tmp_path: Path) -> None:
    status, found = kill(tmp_path, "--kills", "6", "--mutant", "rng")
    assert status == 1
    early = [run for run in found.values() if min(run["resumed_at"]) < 60]  # after the last step no number is drawn any more
    assert early
    assert all("method" in run["differs"] for run in early)
