"""benchmarks/table.py: evaluations side by side, whatever they are called and whether or not they have baselines."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("table")


def figure(value: float | None, *interval: float) -> dict:
    return {"value": value, "n": 9, "ci95": list(interval) or None}


def evaluation(folder: Path, **parts: object) -> str:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"image": {"auroc": figure(0.75, 0.5, 1), "ap": figure(None)}, **parts}))
    return str(folder)


def rows(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()]
    return {line[0]: line[1:] for line in lines}


def test_evaluations_and_the_baselines_of_the_first(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trivial = {"thumbnail": {"image": {"auroc": figure(0.25)}}, "threshold": {"pixel": {"auroc": figure(0.5)}}}
    one, two = evaluation(tmp_path / "one", baseline=trivial), evaluation(tmp_path / "two", pixel={"auroc": {}})
    script.main([f"A|B={one}", f"two={two}"])
    found = rows(capsys.readouterr().out)
    assert found["figure"] == ["A\\|B", "two", "thumbnails (trivial)", "intensity (trivial)"]
    assert found["image AUROC"] == ["0.7500 (0.5000 to 1.0000)", "0.7500 (0.5000 to 1.0000)", "0.2500", ""]
    assert found["image AP"] == ["–", "–", "", ""]
    assert found["pixel AUROC"] == ["", "", "", "0.5000"]
    assert set(found) == {"figure", "---" + "|---" * 4, *script.ROWS}


def test_an_evaluation_without_baselines(script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script.main([f"one={evaluation(tmp_path / 'one')}"])
    assert rows(capsys.readouterr().out)["figure"] == ["one"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["WHERE"], "write NAME=EVALUATION"),
        (["=WHERE"], "write NAME=EVALUATION"),
        (["a=WHERE", "a=WHERE"], "a is named twice"),
        (["a=WHERE/absent"], "no evaluation there"),
    ],
)  # fmt: skip
def test_wrong_words_are_a_line(script: ModuleType, tmp_path: Path, words: list[str], said: str) -> None:
    where = evaluation(tmp_path / "one")
    with pytest.raises(SystemExit, match=said) as stopped:
        script.main([word.replace("WHERE", where) for word in words])
    assert "\n" not in str(stopped.value)


def test_help(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        script.main(["--help"])
    assert "benchmarks/table.py NAME=EVALUATION" in capsys.readouterr().out
