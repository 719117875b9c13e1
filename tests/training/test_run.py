"""What a run leaves behind, and what it does with its settings."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toys
from PIL import Image

from healmap.errors import ConfigError, MissingDependencyError, UsageError
from healmap.methods import weights
from healmap.recipes.saved import load_experiment
from healmap.training import loop, run, train_run, validate
from healmap.training.device import choose_device, choose_precision, cpu_has_bf16
from healmap.training.progress import Lines, duration
from healmap.training.validate import Validator, choose, groups, spread


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[toys.Toy, Path]:
    """StarGAN, whose generator moves every second step: columns of the log arise late."""
    toy = toys.toy("stargan", data, steps=13, sample_every=6, save_every=4)
    out = tmp_path_factory.mktemp("finished") / "run"
    return toy, train_run(toy.experiment, toy.train, toy.val, out, quiet=True, notes=["a leak was allowed"])


def test_the_run_folder(finished: tuple[toys.Toy, Path]) -> None:
    _, out = finished
    assert sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()) == [
        "experiment.json", "log.csv", "manifest.json", "samples/step_00000006.png", "samples/step_00000012.png",
        "samples/step_00000013.png", "state.previous.pt", "state.previous.sha256", "state.pt", "state.sha256", "timing.csv",
        "weights/best.json", "weights/best.safetensors", "weights/last.json", "weights/last.safetensors",
    ]  # fmt: skip


def test_the_log(finished: tuple[toys.Toy, Path]) -> None:
    table = rows(finished[1])
    assert [r["step"] for r in table] == ["5", "6", "10", "12", "13"]
    assert all(r["D.gp"] and r["G.rec"] for r in table if r["step"] in ("5", "10", "13"))
    assert [r["step"] for r in table if r["val.auroc"]] == ["6", "12", "13"]
    assert float(table[0]["lr"]) == 1.0
    assert float(table[-1]["lr"]) < 0.2, "the decay really decays"
    assert all(word not in (finished[1] / "log.csv").read_text() for word in ("seconds", "time"))


def test_the_manifest(finished: tuple[toys.Toy, Path]) -> None:
    toy, out = finished
    text = (out / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["data"]["train"]["fingerprint"] == toy.train.fingerprint
    assert manifest["data"]["val"]["counts"] == toy.val.counts()
    assert manifest["notes"] == ["a leak was allowed"]
    assert manifest["versions"]["torch"] == torch.__version__
    assert (manifest["precision"], manifest["device"], manifest["threads"], manifest["seed"]) == ("32", "cpu", 1, 0)
    assert manifest["machine"]["cores"] > 0
    assert manifest["finished"]["steps"] == 13
    assert 100 < manifest["finished"]["peak_mb"] < 1000 * manifest["machine"]["memory_gib"] * 1.1
    assert str(Path.home()) not in text
    if len(socket.gethostname()) > 4:
        assert socket.gethostname() not in text


def test_peak_memory_is_this_process_own() -> None:
    """A large parent must not show in the child's figure, and memory that was given back stays counted."""
    code = (
        "from healmap.training.manifest import peak_mb; before = peak_mb(); x = bytearray(400_000_000); x[::4096] = x[::4096]; "
        "del x; print(before, peak_mb())"
    )
    ballast = bytearray(800_000_000)
    ballast[::4096] = b"1" * len(ballast[::4096])
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after = map(float, out.split())
    assert after - before > 300
    assert sys.platform != "linux" or before < 700


def test_the_settings_can_start_another_run(finished: tuple[toys.Toy, Path]) -> None:
    toy, out = finished
    assert load_experiment(out / "experiment.json") == toy.experiment


def test_the_weights_are_the_averages(finished: tuple[toys.Toy, Path]) -> None:
    _, out = finished
    state = run.checkpoint.load(out)["loop"]
    method, card = weights.load(out / "weights" / "last.safetensors")
    saved = method.state_dict()
    for name, mean in state["average"]["mean"].items():
        assert torch.equal(saved[name], mean)
    assert any(not torch.equal(saved[n], state["method"][n]) for n in state["average"]["mean"])
    critic = [n for n in saved if n.startswith("D.")]
    assert critic
    assert all(torch.equal(saved[n], state["method"][n]) for n in critic), "only what the method names is averaged"
    assert card["step"] == 13
    assert card["averaged"] is True
    assert card["preprocessing"]


def test_the_best_weights_have_the_highest_rank(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = toys.toy("restoration", data, steps=8, sample_every=2, validation_limit=100)
    monkeypatch.setattr("healmap.training.validate.LEAST_OF_EACH", 2)
    train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True)
    figures = {int(r["step"]): (round(float(r["val.auroc"]), 3), float(r["val.pixel_ap"])) for r in rows(tmp_path / "run")
               if r["val.auroc"]}  # fmt: skip
    card = weights.read_card(tmp_path / "run" / "weights" / "best.safetensors")
    best = max(figures, key=lambda step: (figures[step], step))
    assert len(figures) == 4
    assert card["step"] == best
    assert "AUROC" in card["chosen"]


@pytest.mark.parametrize(("rule", "chosen"), [("auroc", 6), ("aucp", 2)])
def test_of_equally_good_weights(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: str, chosen: int) -> None:
    """By AUROC those that trained longest, by AUCp the first, as its authors choose."""
    toy = toys.toy("healthygan", data, steps=6, sample_every=2, select=rule)
    monkeypatch.setattr("healmap.training.validate.LEAST_OF_EACH", 2)
    figures = Validator.figures
    monkeypatch.setattr(Validator, "figures", lambda self, *a, **k: (figures(self, *a, **k)[0], (0.5, 0.5)))
    train_run(toy.experiment, toy.train, toy.val, tmp_path / "run", quiet=True)
    assert weights.read_card(tmp_path / "run" / "weights" / "best.safetensors")["step"] == chosen


def test_without_enough_validation_images_the_last_are_the_best(finished: tuple[toys.Toy, Path]) -> None:
    folder = finished[1] / "weights"
    assert (folder / "best.safetensors").read_bytes() == (folder / "last.safetensors").read_bytes()
    assert weights.read_card(folder / "best.safetensors")["chosen"] == "last weights"


def test_without_validation_images(data: Path, tmp_path: Path) -> None:
    toy = toys.toy("healthygan", data, steps=3)
    train_run(toy.experiment, toy.train, None, tmp_path / "run", quiet=True)
    assert "val.auroc" not in rows(tmp_path / "run")[-1]
    assert (tmp_path / "run" / "samples" / "step_00000003.png").exists()


def test_pictures_show_healthy_and_diseased_on_one_scale(finished: tuple[toys.Toy, Path]) -> None:
    toy, out = finished
    grid = np.asarray(Image.open(out / "samples" / "step_00000013.png"))
    healthy, diseased = (sum(i.label == label for i in toy.val.items) for label in ("healthy", "diseased"))
    columns = min(4, healthy) + min(4, diseased)
    assert grid.shape == (20 + 3 * 132, 52 + columns * 132 + 60, 3)
    first = grid[20 : 20 + 128, 52 : 52 + 128, 0].reshape(32, 4, 32, 4)[:, 0, :, 0]
    index = next(i for i, item in enumerate(toy.val.items) if item.label == "healthy")
    wanted = (toy.val.image(index)[0] + 1) * 127.5
    assert np.abs(first - wanted).max() <= 1


def test_time_decides_the_number_of_steps(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock on which every step takes 2 s: half a minute is 15 steps, and the learning rate still ends near zero."""
    now = [0.0]

    def tick() -> float:
        now[0] += 2.0
        return now[0]

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=tick))
    toy = toys.toy("restoration", data, steps=1000, minutes=0.5, log_every=1, save_every=1000)
    train_run(toy.experiment, toy.train, None, tmp_path / "run", quiet=True)
    table = rows(tmp_path / "run")
    assert len(table) == 15
    assert float(table[-1]["lr"]) < 0.15
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["finished"]["totals"] == [15]


def test_time_goes_on_after_a_stop(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: Callable[[int], None]
) -> None:
    now = [0.0]

    def tick() -> float:
        now[0] += 2.0
        return now[0]

    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=tick))
    toy = toys.toy("restoration", data, steps=1000, minutes=0.5, save_every=1000)
    stop_at(6)
    with pytest.raises(loop.Interrupted):
        train_run(toy.experiment, toy.train, None, tmp_path / "run", quiet=True)
    stop_at(0)
    train_run(toy.experiment, toy.train, None, tmp_path / "run", quiet=True, resume=True)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["finished"]["totals"] == [15]


def test_a_failing_compiler_changes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator fails to compile when first differentiated, steps after the start: that step is repeated without."""

    def broken(method: torch.nn.Module) -> list[str]:
        forward = method.G.forward

        def compiled(*arguments: torch.Tensor) -> torch.Tensor:
            if torch.is_grad_enabled():
                raise RuntimeError("no compiler found")
            return forward(*arguments)

        method.G._compiled_call_impl = compiled
        return ["G"]

    plain, compiled = (toys.toy("fixed-point-gan", data, steps=6, compile=c) for c in (False, True))
    train_run(plain.experiment, plain.train, None, tmp_path / "plain", quiet=True)
    monkeypatch.setattr(loop, "compile_networks", broken)
    said: list[str] = []
    monkeypatch.setattr("healmap.training.progress.Progress.note", lambda self, text: said.append(text))
    train_run(compiled.experiment, compiled.train, None, tmp_path / "compiled", quiet=True)
    assert "without torch.compile" in said[0]
    assert "no compiler found" in said[0]
    assert toys.digests(tmp_path / "plain") == toys.digests(tmp_path / "compiled")


def test_the_same_seed_gives_the_same_run_and_another_another(data: Path, tmp_path: Path) -> None:
    found = []
    for i, seed in enumerate((1, 1, 2)):
        toy = toys.toy("healthygan", data, steps=4, seed=seed)
        found.append(toys.digests(train_run(toy.experiment, toy.train, None, tmp_path / str(i), quiet=True)))
    assert found[0] == found[1]
    assert found[0]["method"] != found[2]["method"]


def test_the_process_is_left_as_it_was(data: Path, tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        toy = toys.toy("restoration", data, steps=1, deterministic=True)  # with one thread
        train_run(toy.experiment, toy.train, None, tmp_path / "run", quiet=True)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["threads"] == 1
    assert not torch.are_deterministic_algorithms_enabled()


def test_data_without_what_the_method_needs(data: Path, tmp_path: Path) -> None:
    toy = toys.toy("stargan", data)
    healthy = toy.train.subset([i for i, item in enumerate(toy.train.items) if item.label == "healthy"])
    with pytest.raises(UsageError, match="at least two of healthy, diseased"):
        train_run(toy.experiment, healthy, None, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_tensorboard_needs_its_package(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    toy = toys.toy("restoration", data, tensorboard=True)
    with pytest.raises(MissingDependencyError, match=r"healmap\[track\]"):
        train_run(toy.experiment, toy.train, None, tmp_path / "run", quiet=True)


def test_plain_lines_are_spaced(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("healmap.training.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    lines = Lines()
    for step in range(1, 31):
        clock[0] += 1
        lines.step("adversarial", step, 30, 12.34, 75.0)
        lines.losses({"G.adv": 0.12345})
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "adversarial 1/30  12.3 images/s  1 min 15 s left  G.adv 0.1235"
    assert len(said) == 3


def test_live_display_shows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    from io import StringIO

    from rich.console import Console

    from healmap.training.progress import Live

    console = Console(file=StringIO(), force_terminal=True, width=120)
    with Live(console) as live:
        live.step("adversarial", 10, 200, 33.3, 3720)
        live.losses({"G.adv": 1.5})
        live.saved(5)
        live.note("resumed at step 5")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    parts = ("adversarial", "10/200", "33.3 images/s", "1 h 02 min left", "G.adv 1.5", "last checkpoint at step 5", "resumed")
    assert [part for part in parts if part not in text] == []


def test_durations() -> None:
    assert [duration(s) for s in (5, 65, 3600, float("nan"), float("inf"))] == [
        "5 s", "1 min 05 s", "1 h 00 min", "some time", "some time"]  # fmt: skip


def test_devices_and_precisions() -> None:
    assert choose_device("cpu") == "cpu"
    with pytest.raises(ConfigError, match="unknown device 'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="not available here"):
            choose_device("cuda")
    assert choose_precision("auto", "cpu") == ("bf16" if cpu_has_bf16() else "32")
    assert choose_precision("32", "cuda") == "32"
    with pytest.raises(ConfigError, match="graphics"):
        choose_precision("16", "cpu")


def test_validation_images_are_chosen_evenly() -> None:
    labels = ["healthy"] * 30 + ["diseased"] * 10 + ["unknown"] * 5
    dataset = SimpleNamespace(items=[SimpleNamespace(label=label) for label in labels])
    healthy, diseased, by_aucp = groups(dataset, "auroc")  # type: ignore[arg-type]
    assert not by_aucp
    for limit, counts in ((100, (30, 10)), (30, (20, 10)), (12, (6, 6)), (1, (1, 0))):
        chosen = choose(healthy, diseased, limit)
        found = tuple(sum(labels[i] == label for i in chosen) for label in ("healthy", "diseased"))
        assert found == counts
        assert len(chosen) == len(set(chosen))
    assert spread(range(100), 3) == [0, 50, 99]


def test_weights_chosen_by_aucp_need_no_diseased_label(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "LEAST_OF_EACH", 1)  # the toy set is small
    hidden = toys.toy("healthygan", data, steps=12, sample_every=4, select="aucp", validation_limit=400)
    table = rows(train_run(hidden.experiment, hidden.train, hidden.val, tmp_path / "run", quiet=True))
    seen = {int(r["step"]): float(r["val.aucp"]) for r in table if r["val.aucp"]}
    assert sorted(seen) == [4, 8, 12]
    card = json.loads((tmp_path / "run/weights/best.json").read_text())
    assert "AUCp" in card["chosen"]
    best = max(round(v, 3) for v in seen.values())
    assert card["step"] == min(step for step, v in seen.items() if round(v, 3) == best), "the first of equals"


def test_aucp_where_validation_images_are_healthy_or_unknown() -> None:
    labels = ["healthy"] * 12 + ["unknown"] * 14
    items = [SimpleNamespace(label=label, patient_id=str(i)) for i, label in enumerate(labels)]
    dataset = SimpleNamespace(items=items, config=SimpleNamespace(domains=()))
    known, mixed, by_aucp = groups(dataset, "auto")  # type: ignore[arg-type]
    assert by_aucp
    assert known == list(range(12))
    assert mixed == list(range(12, 26))


def test_aucp_without_a_mixed_set_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    toy = toys.toy("restoration", data, steps=2, select="aucp")
    healthy = toy.val.subset([i for i, item in enumerate(toy.val.items) if item.label == "healthy"])
    with pytest.raises(UsageError, match="no diseased image"):
        train_run(toy.experiment, toy.train, healthy, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "log.csv").exists()
