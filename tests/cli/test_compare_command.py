"""``healmap compare`` as a user meets it: files, exit codes, help; and the script that makes the comparators' table."""

from __future__ import annotations

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from fakes import make_run, plane
from PIL import Image as Pil

from healmap import methods, recipes
from healmap.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["path,label,patient_id,split,mask"]
    for number in range(12):
        split, sick = ("train", "val", "test")[number // 4], number % 2
        image = plane(number, lesion=(10, 8, 10) if sick else None)
        Pil.fromarray(image).save(folder / f"{number}.png")
        if sick:
            Pil.fromarray(((image == 228) * 255).astype(np.uint8)).save(folder / f"{number}m.png")
        rows.append(f"{number}.png,{'diseased' if sick else 'healthy'},p{number},{split},{f'{number}m.png' if sick else ''}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


def compare(*words: object) -> int:
    return main(["compare", *map(str, words), "--device", "cpu", "--bootstrap", "20"])


def test_exit_codes_and_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = (make_run(tmp_path / name, monkeypatch, size=48) for name in ("one", "two"))
    out, absent = tmp_path / "out", tmp_path / "absent"
    assert compare(one, two, "--data", data, "--split", "test", "-o", out) == 0
    said = capsys.readouterr().out
    assert {"table.csv", "table.md", "compare.html", "compare.json"} <= {path.name for path in out.iterdir()}
    assert "brightness (trivial)" in said
    assert f"page: {out / 'compare.html'}" in said

    assert compare(one, absent, "--data", data, "--split", "test", "-o", out) == 3
    assert "healmap: absent: no such run folder" in capsys.readouterr().err
    with open(out / "table.csv", newline="") as file:
        assert [row["run"] for row in csv.DictReader(file) if row["error"]] == ["absent"]

    assert compare(absent, tmp_path / "gone", "--data", data, "-o", tmp_path / "none") == 1
    error = capsys.readouterr().err
    assert error.startswith("healmap: no run could be evaluated: absent: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "none" / "compare.json").exists()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["RUN", "--data", "NOWHERE", "-o", "OUT"], "NOWHERE"),
        (["RUN", "RUN", "--data", "DATA", "-o", "OUT"], "named twice"),
        (["RUN", "--data", "DATA", "-o", "OUT", "--cases", "-1"], "cases and bootstrap are counts"),
    ],
    ids=["data", "twice", "cases"],
)
def test_wrong_usage_is_one_clear_line(
    words: list[str], part: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    places = {"RUN": make_run(tmp_path / "run", monkeypatch, size=48), "DATA": data, "OUT": tmp_path / "OUT",
              "NOWHERE": tmp_path / "NOWHERE"}  # fmt: skip
    assert compare(*(places.get(word, word) for word in words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("healmap: ")
    assert error.count("\n") == 1
    assert part in error


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", "--help"])
    assert ended.value.code == 0
    assert "example:\n  healmap compare " in capsys.readouterr().out
    with pytest.raises(SystemExit) as ended:
        main(["compare", "run", "-o", "out"])  # without --data
    assert ended.value.code == 2


# ---- the script --------------------------------------------------------------------------------------------------------


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location("comparators_table", ROOT / "benchmarks" / "comparators_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_method_by_its_small_recipe(script: ModuleType) -> None:
    chosen = script.asked_for([])
    assert set(chosen) == set(methods.names())
    assert next(iter(chosen)) == "restoration"
    for name, recipe in chosen.items():
        assert recipe == (f"{name}-small" if f"{name}-small" in recipes.names() else name)
        assert recipes.get(recipe).method_name == name
    assert script.asked_for(["stargan=stargan-celeba", "restoration"]) == {
        "restoration": "restoration-small", "stargan": "stargan-celeba",
    }  # fmt: skip


def test_settings_go_to_the_method_that_they_name(script: ModuleType) -> None:
    words = ["stargan:method.lambda_rec=5", "training.ema=0.9"]
    assert script.settings_of("stargan", words)[-2:] == ["method.lambda_rec=5", "training.ema=0.9"]
    assert script.settings_of("restoration", words)[-1:] == ["training.ema=0.9"]
    assert "method.lambda_rec=5" not in script.settings_of("restoration", words)


def test_trained_compared_and_not_done_again(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands themselves are tested elsewhere: here is what the script makes of their outcomes."""
    calls: list[list[str]] = []

    def fake(command: list[str], environment: dict[str, str], allowed: tuple[int, ...] = (0,)) -> str:
        calls.append(command)
        verb = command[3]
        out = Path(command[command.index("--out" if verb == "train" else "-o") + 1])
        if "pix2pix-small" in command:
            return "healmap: pairs are needed"
        out.mkdir(parents=True, exist_ok=True)
        if verb == "train":
            (out / "manifest.json").write_text(json.dumps({"finished": {"steps": 5, "seconds": 1.0}}))
        else:
            (out / "table.md").write_text("| a table |\n")
        return ""

    monkeypatch.setattr(script, "last_words", fake)
    monkeypatch.setattr(sys.modules["table_runs"], "last_words", fake)
    words = [str(tmp_path / "work"), "--data", f"mine={data}", "--methods", "pix2pix", "restoration", "--minutes", "0.1"]
    tables = script.main(words)
    assert [command[3] for command in calls] == ["train", "train", "compare"]
    assert "--resume" in calls[0]
    runs = calls[2][4 : calls[2].index("--data")]
    assert [Path(run).name for run in runs] == ["restoration"], "what was not trained is not compared, but listed"
    assert "| a table |" in tables["mine"]
    assert "- pix2pix, not trained: pairs are needed" in (tmp_path / "work" / "table.md").read_text()
    calls.clear()
    script.main(words)
    assert [command[3:5] for command in calls] == [["train", "pix2pix-small"], ["compare", runs[0]]]


def test_data_that_are_not_there(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no such file"):
        script.main([str(tmp_path), "--data", f"lgg_flair={tmp_path / 'absent'}"])
    with pytest.raises(SystemExit, match="write phantoms, or NAME=PATH"):
        script.main([str(tmp_path), "--data", "lgg_flair"])
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "comparators_table.py"), "--help"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "comparators_table.py WORK" in done.stdout
