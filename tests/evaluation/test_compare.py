"""Several runs on the same images: their own figures, paired differences, what is used again and what is refused."""

from __future__ import annotations

import gc
import json
import os
import re
import weakref
from pathlib import Path
from typing import Any

import fakes
import numpy as np
import pytest
import torch
from fakes import Dimmer, make_run, plane
from PIL import Image as Pil

from healmap import methods
from healmap.data.dataset import open_dataset
from healmap.data.table import Table
from healmap.detection.predictor import Predictor
from healmap.errors import CheckpointError, DataError, UsageError, WriteError
from healmap.evaluation import compare, parts
from healmap.evaluation.cases import choose_cases
from healmap.evaluation.compare import compare_runs
from healmap.evaluation.evaluate import evaluate_run
from healmap.evaluation.lineup import names_of
from healmap.evaluation.notes import differing
from healmap.evaluation.record import reason, training_facts, training_notes
from healmap.experiment import DataConfig
from healmap.io.hashing import sha256_file
from healmap.methods import weights
from healmap.report.compared import standing, write_compared
from healmap.types import Prediction


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two images of each of six patients per split, every second patient diseased; a column "site" that tells halves apart."""
    folder = tmp_path / "data"
    (folder / "masks").mkdir(parents=True)
    rows, number = ["path,label,patient_id,split,mask,site"], 0
    for split in ("train", "val", "test"):
        for p in range(6):
            for k in range(2):
                number += 1
                image = plane(number, lesion=(6 + 3 * k, 8 + 2 * p, 12) if p % 2 else None)
                mask = f"masks/{number}.png" if p % 2 else ""
                if mask:
                    Pil.fromarray(((image == 228) * 255).astype(np.uint8)).save(folder / mask)
                    if split == "test" and p == 1:
                        image[image == 228] = 120  # below the middle: missed
                elif k:
                    image[40, 5] = 150  # a speck: a false alarm of the map
                Pil.fromarray(image).save(folder / f"{number}.png")
                site = "a" if p < 4 else "b"
                rows.append(f"{number}.png,{'diseased' if p % 2 else 'healthy'},{split}{p},{split},{mask},{site}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(autouse=True)
def _quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The logistic regression of the thumbnails is most of the time: one test has it."""
    if "alone" not in request.node.name:
        monkeypatch.setattr("healmap.evaluation.evaluate.fit_thumbnails", lambda train: "left out")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A Dimmer at 48 px, one at 32 px, and one that changes nothing."""
    made = [make_run(tmp_path / name, monkeypatch, size=size) for name, size in (("wide", 48), ("narrow", 32), ("idle", 48))]
    change(made[2], level=1.0)
    return made


def change(run: Path, *, level: float) -> None:
    file = run / "weights" / "best.safetensors"
    method, card = weights.load(file)
    with torch.no_grad():
        method.get_parameter("level").fill_(level)
    weights.save(method, file, dict(card))


def by_name(tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["run"]: row for row in tree["runs"]}


def compared(runs: list[Path], data: Path, out: Path, **options: Any) -> dict[str, Any]:
    return compare_runs(runs, data, "test", out, **({"device": "cpu", "bootstrap": 40, "cases": 2} | options))


def test_figures_are_those_of_each_run_alone(runs: list[Path], data: Path, tmp_path: Path) -> None:
    tree = compared(runs, data, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["runs"] == tree["runs"]
    for name, run in zip(("wide", "narrow", "idle"), runs, strict=True):
        alone = evaluate_run(run, data, "test", tmp_path / f"alone-{name}", device="cpu", bootstrap=40)
        row = by_name(tree)[name]
        for part in ("image", "pixel", "lesion", "healthy"):
            assert row["figures"][part] == alone[part], (name, part)
        if name != "narrow":  # the baselines see the images as the first run does
            assert row["margin"] == alone["margin"]
            assert tree["baselines"]["figures"]["all"] == alone["baseline"]
    assert tree["failed"] == []
    assert any("working size differs (48 px: wide, idle; 32 px: narrow)" in note for note in tree["notes"])


def test_differences_are_paired(runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    again = make_run(tmp_path / "again", monkeypatch, size=48)
    tree = compared([runs[0], again, runs[2]], data, tmp_path / "out")
    rows = by_name(tree)
    assert "difference" not in rows["wide"]
    same, idle = rows["again"]["difference"], rows["idle"]["difference"]
    assert same["pixel"]["ap"]["value"] == 0
    assert same["pixel"]["ap"]["ci95"] == [0, 0]  # unpaired resamples would spread
    mine, first = rows["idle"]["figures"]["image"]["auroc"], rows["wide"]["figures"]["image"]["auroc"]
    assert idle["image"]["auroc"]["value"] == pytest.approx(mine["value"] - first["value"])
    assert rows["idle"]["margin"]["threshold"]["pixel"]["ap"]["value"] < 0


def test_runs_with_a_fault_are_listed(runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = make_run(tmp_path / "damaged", monkeypatch, size=48)
    (damaged / "weights" / "best.safetensors").write_bytes(b"nothing of the kind")
    (tmp_path / "empty").mkdir()
    colour = make_run(tmp_path / "colour", monkeypatch, size=48)
    card = colour / "weights" / "best.json"
    plain = json.loads(card.read_text())
    plain["preprocessing"]["settings"]["channels"] = 3
    card.write_text(json.dumps(plain))
    told: list[str] = []
    given = [damaged, runs[0], tmp_path / "nowhere", tmp_path / "empty", colour]
    tree = compared(given, data, tmp_path / "out", tell=told.append)
    reasons = {bad["run"]: bad["error"] for bad in tree["failed"]}
    assert list(reasons) == ["damaged", "nowhere", "empty", "colour"]
    assert [row["run"] for row in tree["runs"]] == ["wide"]
    assert "no weights 'best'" in reasons["empty"]
    assert "its card prepares 3 x 48 x 48" in reasons["colour"]
    assert str(tmp_path) not in json.dumps(reasons), "pages travel: no folders of this machine"
    assert [line.partition(":")[0] for line in told] == ["damaged", "wide", "nowhere", "empty", "colour"]
    with pytest.raises(DataError, match=r"no run could be evaluated.*damaged: .*empty: no weights"):
        compared([damaged, tmp_path / "empty"], data, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["parts"], "no table of the comparison before"


def test_what_is_wrong_with_the_request_is_wrong_usage(runs: list[Path], data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to compare"):
        compared([], data, tmp_path / "out")
    with pytest.raises(UsageError, match="named twice"):
        compared([runs[0], Path(f"{runs[0]}/.")], data, tmp_path / "out")
    with pytest.raises(UsageError, match="no row belongs to split 'tset'"):
        compare_runs(runs, data, "tset", tmp_path / "out")
    table = (data / "labels.csv").read_text().replace("test1", "train1")
    (data / "labels.csv").write_text(table)
    with pytest.raises(UsageError, match="train1"):  # every run fails for the same reason: the data's
        compared(runs[:1] + runs[2:], data, tmp_path / "out")


@pytest.fixture
def choosy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    class Choosy(Dimmer):
        class_at_inference = True

    monkeypatch.setattr(fakes, "Choosy", Choosy, raising=False)
    monkeypatch.setitem(methods.METHODS, "choosy", ("fakes", "Choosy"))
    run = make_run(tmp_path / "choosy", monkeypatch, size=48)
    card = run / "weights" / "best.json"
    card.write_text(card.read_text().replace('"dimmer"', '"choosy"'))
    return run


def test_runs_that_see_diseased_images_only_and_have_no_masks_prove_nothing(choosy: Path, data: Path, tmp_path: Path) -> None:
    for mask in (data / "masks").iterdir():
        mask.unlink()
    table = (data / "labels.csv").read_text()
    (data / "labels.csv").write_text(re.sub(r"masks/\d+\.png", "", table))
    tree = compared([choosy], data, tmp_path / "out")
    assert standing(tree["runs"][0]) == ("unclear", "nothing to compare with the baselines")
    page = write_compared(tmp_path / "out").read_text()
    healthy = next(case["key"] for case in tree["cases"] if case["label"] == "healthy")
    assert f'alt="input {healthy}"' in page, "the input is shown although no run saw it"
    assert "not shown: the method takes diseased images only" in page


def test_a_method_that_must_know_the_class(runs: list[Path], choosy: Path, data: Path, tmp_path: Path) -> None:
    tree = compared([runs[2], choosy], data, tmp_path / "out")
    row = by_name(tree)["choosy"]
    assert (row["shown"], row["evaluated"]["images"]) == ("diseased", 6)
    assert row["figures"]["image"]["auroc"]["value"] is None
    assert "difference" not in row, "the images are others"
    alone = evaluate_run(choosy, data, "test", tmp_path / "alone", device="cpu", bootstrap=40)
    assert row["margin"] == alone["margin"]
    assert tree["baselines"]["figures"]["diseased"] == alone["baseline"]
    assert tree["baselines"]["figures"]["all"]["threshold"]["image"]["auroc"]["value"] is not None
    assert any(note.startswith("choosy: ") for note in tree["notes"])
    write_compared(tmp_path / "out")
    tree = compared([runs[2], choosy], data, tmp_path / "out", assume_diseased=True)
    assert by_name(tree)["choosy"]["shown"] == "all"
    assert set(tree["baselines"]["figures"]) == {"all"}


def test_a_method_without_a_map(runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Teller(Dimmer):
        localises = False
        heals = False

        def predict(self, image: torch.Tensor) -> Prediction:
            return Prediction(super().predict(image).score)

    monkeypatch.setattr(fakes, "Teller", Teller, raising=False)
    teller = make_run(tmp_path / "teller", monkeypatch, size=48)
    monkeypatch.setitem(methods.METHODS, "teller", ("fakes", "Teller"))
    card = teller / "weights" / "best.json"
    card.write_text(card.read_text().replace('"dimmer"', '"teller"'))
    row = by_name(compared([runs[0], teller], data, tmp_path / "out"))["teller"]
    assert row["figures"]["pixel"]["ap"]["reason"] == "this detector gives no map"
    assert row["figures"]["image"]["auroc"]["value"] == pytest.approx(
        by_name(compared(runs[:1], data, tmp_path / "out"))["wide"]["figures"]["image"]["auroc"]["value"]
    )


def test_only_what_is_the_same_is_used_again(
    runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, looked = tmp_path / "out", []
    collect = compare.collect

    def counted(predictor: Predictor, *rest: Any) -> None:
        looked.append(predictor.weights_sha256)
        collect(predictor, *rest)

    monkeypatch.setattr(compare, "collect", counted)

    def times(given: list[Path], **options: Any) -> int:
        looked.clear()
        compared(given, data, out, **options)
        return len(looked)

    first = compared(runs[:2], data, out)
    assert times(runs[:2]) == 0
    assert json.loads((out / "compare.json").read_text())["runs"] == first["runs"]
    assert times(runs) == 1, "only the new run"
    change(runs[1], level=0.1)
    assert times(runs) == 1, "only the one with other weights"
    assert times(runs, bootstrap=30) == 3
    used = {p.name for p in (out / "parts").iterdir()}
    assert {Path(row["pictures"]).name for row in json.loads((out / "compare.json").read_text())["runs"]} <= used
    assert len(used) == 4, "three runs and the baselines; what is no longer used is gone"
    picture = out / by_name(json.loads((out / "compare.json").read_text()))["wide"]["pictures"] / "pictures.npz"
    damaged = bytearray(picture.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    picture.write_bytes(damaged)
    assert times(runs, bootstrap=30) == 1, "a flipped bit"
    picture.unlink()
    assert times(runs, bootstrap=30) == 1, "a missing file"
    samples = picture.with_name("samples.npz")
    samples.write_bytes(b"PK" + samples.read_bytes()[2:-9])
    assert times(runs, bootstrap=30) == 1
    killed = out / "parts" / ("0" * 20)
    killed.mkdir()
    (killed / "pictures.npz").write_bytes(b"half")
    assert times(runs, bootstrap=30) == 0
    assert not killed.exists()
    monkeypatch.setattr(parts, "code", lambda: "other code")
    assert times(runs, bootstrap=30) == 3
    thresholds = runs[0] / "weights" / "thresholds.json"
    plain = json.loads(thresholds.read_text())
    plain["pixel"]["value"] *= 1.5
    thresholds.write_text(json.dumps(plain))
    assert times(runs, bootstrap=30) == 1, "another threshold"
    Pil.fromarray(plane(999)).save(data / "25.png")  # an image of the test split
    assert times(runs, bootstrap=30) == 3, "another image"


def test_twins_are_read_once_and_their_change_is_seen(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    head, *rows = (data / "labels.csv").read_text().splitlines()
    (data / "labels.csv").write_text("\n".join([f"{head},twin", *(f"{row},twin.png" for row in rows)]) + "\n")
    test, read = open_dataset(data, "test", DataConfig(size=48, normalisation="none")), list[Path]()

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_file(path)

    def written(seed: int, at: int) -> str:
        Pil.fromarray(plane(seed)).save(data / "twin.png")
        os.utime(data / "twin.png", (at, at))
        monkeypatch.setattr("healmap.data.hashes.SETTLED_SECONDS", -60)  # the clock of changes cannot be set back
        return compare._twins(test)

    monkeypatch.setattr("healmap.data.hashes.sha256_file", counted)
    first = written(1, 1_000_000)
    read.clear()
    assert compare._twins(test) == first
    assert not read, "what did not change is not read again"
    assert written(2, 1_000_001) != first


def test_the_comparison_is_on_the_images_that_all_admit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = make_run(tmp_path / "every", monkeypatch, size=48)
    some = make_run(tmp_path / "some", monkeypatch, size=48)
    other = make_run(tmp_path / "other", monkeypatch, size=48)
    for run, site in ((some, "a"), (other, "b")):
        card = run / "weights" / "best.json"
        plain = json.loads(card.read_text())
        plain["data"] = {**plain["preprocessing"]["settings"], "select": f"site={site}"}
        card.write_text(json.dumps(plain))
    tree = compared([every, some, other], data, tmp_path / "out")
    assert [row["evaluated"]["images"] for row in tree["runs"]] == [8, 8]
    assert tree["evaluated"]["images"] == 8
    assert "the comparison is on the 8 that all admit (every 12)" in tree["notes"][0]
    assert tree["failed"][0]["run"] == "other"
    assert "admit none of the images" in tree["failed"][0]["error"]
    assert "some: 12 of 36 rows left out by select site=a" in tree["notes"], "what a run's data leave out, by its name"
    collect, told = compare.collect, list[str]()

    def failing(predictor: Predictor, *rest: Any) -> None:
        if predictor.data.select:
            raise DataError("the method's answer is not a number")
        collect(predictor, *rest)

    monkeypatch.setattr(compare, "collect", failing)
    tree = compared([every, some], data, tmp_path / "late", tell=told.append)
    assert tree["evaluated"]["images"] == 12, "a run that failed does not decide which images the others are compared on"
    assert [bad["run"] for bad in tree["failed"]] == ["some"]
    assert not any("admit different images" in note for note in tree["notes"])
    assert told[2].startswith("once more without some")


def test_one_run_is_in_memory_at_a_time(runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []
    most: list[int] = []
    load, collect = weights.load, compare.collect

    def watched(*arguments: Any) -> Any:
        method, card = load(*arguments)
        alive.append(weakref.ref(method))
        gc.collect()
        most.append(sum(ref() is not None for ref in alive))
        return method, card

    def failing(predictor: Predictor, *rest: Any) -> None:
        if predictor.preprocessing.config.size == 48:
            raise DataError("the method's answer is not a number")
        collect(predictor, *rest)

    monkeypatch.setattr("healmap.detection.predictor.weights_files.load", watched)
    monkeypatch.setattr(compare, "collect", failing)
    assert len(compared([runs[0], runs[2], runs[1]], data, tmp_path / "out")["failed"]) == 2
    assert most == [1, 1, 1], "each is loaded once, and gone before the next, failed or not"


@pytest.mark.parametrize("error", [RuntimeError("out of memory at /home/x"), MemoryError()], ids=["runtime", "memory"])
def test_the_network_of_one_run_stops(
    runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The others are compared, and the baselines see the images as the first of these does."""
    collect = compare.collect

    def failing(predictor: Predictor, *rest: Any) -> None:
        if predictor.method.get_parameter("level") == 1:
            raise error
        collect(predictor, *rest)

    monkeypatch.setattr(compare, "collect", failing)
    tree = compared([runs[2], runs[1]], data, tmp_path / "out")
    assert [row["run"] for row in tree["runs"]] == ["narrow"]
    assert tree["baselines"]["prepared_as"] == tree["reference"] == "narrow"
    assert tree["failed"][0]["error"].startswith(f"its evaluation stopped with {type(error).__name__}: ")


def test_nothing_is_written_into_a_folder_of_other_things(
    runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "look", lambda *_: pytest.fail("a run was evaluated"))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("labels.csv", "table.csv"):
        (theirs / name).write_text("somebody's own")
    with pytest.raises(UsageError, match="output folder is a file"):
        compared(runs, data, theirs / "labels.csv")
    with pytest.raises(UsageError, match=r"holds other things: labels\.csv"):
        compared(runs, data, theirs)
    assert (theirs / "table.csv").read_text() == "somebody's own"


def test_what_cannot_be_written_is_no_fault_of_a_run(
    runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("healmap.evaluation.evaluate.fit_thumbnails", lambda train: "left out")

    def full(*_: Any) -> None:
        raise WriteError("cannot write", hint="No space left on device")

    monkeypatch.setattr(compare, "save_pictures", full)
    with pytest.raises(WriteError, match="No space"):
        compared(runs, data, tmp_path / "out")


def test_shown_cases_depend_on_the_images_alone(runs: list[Path], data: Path, tmp_path: Path) -> None:
    test = open_dataset(data, "test", DataConfig(size=48, normalisation="none"))
    chosen = choose_cases(test, 3)
    assert [test.items[i].label for i in chosen] == ["diseased"] * 3 + ["healthy"] * 3
    assert len({test.items[i].patient_id for i in chosen}) == 6, "of as many patients as there are"
    assert len(choose_cases(test, 5)) == 10
    assert choose_cases(test, 0) == []
    forth, back = (compared(order, data, tmp_path / "out")["cases"] for order in (runs, runs[::-1]))
    assert forth == back
    assert [case["key"] for case in forth] == [test.items[i].key for i in choose_cases(test, 2)]


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    assert list(names_of(["runs/padim", "vae/"])) == ["padim", "vae"]
    assert list(names_of(["a/x/run", "b/x/run", "other"])) == ["a/x/run", "b/x/run", "other"]
    assert list(names_of(["a/run", "b/run"])) == ["a/run", "b/run"]
    assert list(names_of(["a/tab\x1b[31mred", "a\udcff", "x\ny"])) == [r"tab\x1b[31mred", r"a\udcff", r"x\ny"]
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "run")
    with pytest.raises(UsageError, match="named twice"):
        names_of([tmp_path / "run", tmp_path / "link"])


def test_a_reason_names_no_folder_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    run, table = tmp_path / "runs" / "vae", Table(tmp_path / "data", ())
    error = DataError(
        f"{run}2 and {tmp_path}/data/1.png differ", where=f"{run}/weights", hint=f"see {tmp_path}/home/.cache \x1b"
    )
    said = reason(error, run, table)
    assert said == r"runs/vae2 and data/1.png differ (vae/weights): see ~/.cache \x1b"
    assert reason(CheckpointError("no such run folder", where=str(run)), run, table) == "no such run folder"


DAMAGED = [
    "nothing", "{}", '{"notes": null}', '{"notes": "abc"}', '{"finished": "yes"}', '{"machine": "x", "finished": {}}',
    '{"finished": {"steps": "many"}}', '{"threads": [1]}',
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_manifest_is_named_and_nothing_else(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    assert training_notes(tmp_path) == ["its manifest is missing or damaged: what its training cost is not known"]
    assert set(training_facts(tmp_path).values()) == {None}


def test_a_note_on_many_runs_names_the_few() -> None:
    def row(k: int, threads: int) -> dict[str, Any]:
        training = {"processor": "p", "device": "cpu", "threads": threads, "precision": "32"}
        data = {"size": 48, "channels": 1, "fit": "pad", "normalisation": "none"}
        thresholds = {"pixel": {"how": "by Dice"}}
        return {"run": f"r{k}", "shown": "all", "settings": {"data": data}, "domains": ["healthy", "diseased"],
                "thresholds": thresholds, "localises": True, "training": training}  # fmt: skip

    (note,) = differing([row(k, 1 + (k == 3)) for k in range(8)])
    assert note == "threads differs (1: the other 7; 2: r3): compare times and memory with care"
    (note,) = differing([row(k, 1 + (k == 3)) for k in range(4)])
    assert note.startswith("threads differs (1: r0, r1, r2; 2: r3)")


def test_the_notes_of_an_unfinished_training(
    runs: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise WriteError("cannot write")

    monkeypatch.setattr("healmap.evaluation.evaluate.save_thresholds", full)
    (runs[0] / "manifest.json").write_text(json.dumps({"notes": ["a leak was allowed"], "threads": 2}))
    (runs[2] / "manifest.json").write_text(
        json.dumps({"threads": 1, "finished": {"steps": 7, "seconds": 3.5, "peak_mb": 400.0}, "notes": []})
    )
    tree = compared([runs[0], runs[2]], data, tmp_path / "out", notes=["split on the spot"])
    assert tree["notes"][0] == "split on the spot"
    assert any(note.endswith("val split of these data; they could not be kept in its folder") for note in tree["notes"])
    assert "wide: its training was not finished" in tree["notes"]
    assert "wide: a leak was allowed" in tree["notes"]
    assert any(note.startswith("threads differs (2: wide; 1: idle)") for note in tree["notes"])
    training = by_name(tree)["idle"]["training"]
    assert (training["steps"], training["seconds"], training["peak_mb"]) == (7, 3.5, 400.0)
