"""``healmap compare`` as a user meets it: files, exit codes, help."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import make_run, plane
from PIL import Image as Pil

from healmap import api
from healmap.cli.main import main


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


def test_names_that_are_markup_or_command_a_terminal(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("healmap.evaluation.evaluate.fit_thumbnails", lambda train: "left out")
    names = ["[bold]x", "[/red]", "tab\x1b[31mred", "a\nb"]
    runs = [make_run(tmp_path / name.replace("/", ":"), monkeypatch, size=48) for name in names]
    assert compare(*runs, tmp_path / "\x1b[2J", "--data", data, "-o", tmp_path / "out") == 3
    said = capsys.readouterr()
    assert "\x1b" not in said.out + said.err
    for name in ("[bold]x", "[:red]", r"tab\x1b[31mred", r"a\nb"):
        assert name in said.out
    assert r"\x1b[2J: no such run folder" in said.err


def test_data_without_splits_are_said_to_be_split(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    table = (data / "labels.csv").read_text()
    (data / "labels.csv").write_text(re.sub(",(split|train|val|test),", ",", table))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr("healmap.evaluation.compare.compare_runs", lambda *_, **options: asked.append(options))
    monkeypatch.setattr("healmap.evaluation.evaluate.evaluate_run", lambda *_, **options: asked.append(options))
    monkeypatch.setattr("healmap.report.compared.write_compared", lambda out: out)
    monkeypatch.setattr("healmap.report.report.write_report", lambda out: out)
    api.compare([tmp_path], data, tmp_path / "out")
    api.evaluate(tmp_path, data, tmp_path / "out")
    for options in asked:
        assert "split by patient 70/10/20" in options["notes"][0]
    assert len(asked) == 2


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
