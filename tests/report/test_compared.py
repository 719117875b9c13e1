"""Table and page of a comparison: complete, the same cases for every run, nothing hidden, nothing run."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import make_run
from matplotlib.figure import Figure
from pages import HOSTILE, HOSTILE_FILE, Reader, hostile_data

from healmap.detection.overlay import palette
from healmap.errors import UsageError
from healmap.evaluation.compare import compare_runs
from healmap.methods import weights
from healmap.report import compared
from healmap.report.compared import ABREAST, _md, duration, forest, memory, standing, table_csv, table_md, write_compared
from healmap.report.page import number
from healmap.report.pictures import map_tile

RUNS = ("plain", "bar|red", r"$\bad$", "fourth", "fifth", "sixth")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Six runs, one of which changes nothing, and one that is not there; names in the data try to break the page."""
    base = tmp_path_factory.mktemp("compared")
    data = base / "a [link](javascript:x) *b*\n"
    hostile_data(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEALMAP_CACHE", str(base / "cache"))
        runs = [make_run(base / name, patch, size=48) for name in RUNS]
        idle, card = weights.load(runs[1] / "weights" / "best.safetensors")
        idle.get_parameter("level").data.fill_(1.0)
        weights.save(idle, runs[1] / "weights" / "best.safetensors", dict(card))
        training = {"threads": 1, "finished": {"steps": 1200, "seconds": 61.4, "peak_mb": 812.0}, "notes": []}
        (runs[0] / "manifest.json").write_text(json.dumps(training))
        compare_runs([*runs, base / "absent"], data, "test", base / "out", device="cpu", bootstrap=30, cases=3)
        write_compared(base / "out")
        yield base / "out"


@pytest.fixture(scope="module")
def tree(out: Path) -> dict[str, Any]:
    return json.loads((out / "compare.json").read_text())


@pytest.fixture(scope="module")
def page(out: Path) -> str:
    return (out / "compare.html").read_text()


def test_the_page_is_complete_and_runs_nothing(page: str) -> None:
    found = Reader(page)
    assert not {"script", "iframe", "object", "link", "form"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:image/png;base64,").startswith("data:image/png;base64,")
    assert any("default-src 'none'" in (a.get("content") or "") for t, a in found.tags if t == "meta")
    assert "http://" not in page
    assert "https://" not in page
    assert HOSTILE not in page
    words = "".join(found.words)
    assert HOSTILE in words
    assert HOSTILE_FILE in words


def test_every_picture_and_table_says_what_it_is(page: str) -> None:
    found = Reader(page)
    for tag, attributes in found.tags:
        if tag == "img":
            assert attributes.get("alt"), attributes.get("src", "")
    heads = [attributes for tag, attributes in found.tags if tag == "th"]
    assert heads
    assert all(attributes.get("scope") in ("col", "row") for attributes in heads)


def test_every_run_shows_the_same_cases_in_its_own_scale(page: str, tree: dict[str, Any]) -> None:
    assert len(tree["cases"]) == 6
    for case in tree["cases"]:
        alt = [a.get("alt") for t, a in Reader(page).tags if t == "img"]
        for run in RUNS:
            assert alt.count(f"anomaly map of {case['key']} by {run}") == 1
            assert alt.count(f"{case['key']} healed by {run}") == 1
        blocks = -(-len(RUNS) // ABREAST)
        assert alt.count(f"input {case['key']}") == alt.count(f"annotation of {case['key']}") == blocks
    for row in tree["runs"]:
        assert f"colour scale from 0 to {number(row['thresholds']['scale']['value'])}" in page


def test_a_map_is_drawn_in_the_run_scale() -> None:
    values = np.zeros((64, 64), np.float16)
    values[:32], values[32:, 32:] = 0.25, 5.0
    picture = map_tile(values, 0.5, compared.SIDES)
    colours = np.rint(255 * palette()).astype(np.uint8)
    assert picture.shape == (128, 128, 3)
    assert (picture[10, 64] == colours[128]).all()
    assert (picture[-1, 0] == colours[0]).all()
    assert (picture[-1, -1] == colours[255]).all(), "above the top saturates"
    assert (compared.bar()[0, [0, -1]] == colours[[0, -1]]).all()


def test_failed_and_losing_runs_stand_at_the_head(page: str) -> None:
    words = " ".join(" ".join(Reader(page).words).split())
    assert words.index("Not compared") < words.index("Loses to a trivial baseline") < words.index("Figures")
    assert "absent : no such run folder" in words
    assert "Loses to a trivial baseline: bar|red." in words
    assert "loses to brightness: image AUROC" in words


def test_the_table_as_csv(out: Path, tree: dict[str, Any]) -> None:
    with open(out / "table.csv", newline="", encoding="utf-8") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    assert list(rows) == [*RUNS, "brightness (trivial)", "thumbnails (trivial)", "absent"]
    for row in tree["runs"]:
        figure = row["figures"]["pixel"]["ap"]
        cells = rows[row["run"]]
        assert float(cells["pixel_ap"]) == figure["value"], "in full"
        assert [float(cells["pixel_ap_low"]), float(cells["pixel_ap_high"])] == figure["ci95"]
    plain = rows["plain"]
    assert (plain["steps"], plain["seconds"], plain["peak_mb"]) == ("1200", "61.4", "812")
    assert rows[RUNS[2]]["steps"] == ""
    assert float(rows[RUNS[2]]["pixel_ap_minus_reference"]) == 0
    assert float(rows["bar|red"]["pixel_ap_minus_reference"]) < 0
    assert (rows["bar|red"]["standing"], rows["thumbnails (trivial)"]["pixel_ap"]) == ("worse", "")
    assert "no such run folder" in rows["absent"]["error"]


def test_no_cell_is_a_formula(tree: dict[str, Any]) -> None:
    row = {**tree["runs"][0], "run": "=1+1", "recipe": "@x"}
    cells = next(csv.DictReader(io.StringIO(table_csv({**tree, "runs": [row], "failed": []}))))
    assert (cells["run"], cells["recipe"]) == ("'=1+1", "'@x")


def test_the_table_as_markdown(out: Path) -> None:
    lines = (out / "table.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    columns = {len(re.split(r"(?<!\\)\|", line)) for line in table}
    assert columns == {len(compared.COLUMNS) + 2}, "a bar in a name is no column"
    assert any(line.startswith("| bar\\|red |") and "**loses to brightness" in line for line in table)
    assert any("| plain | dimmer | healthy images | 1,200 | 61 s | 0.81 GB |" in line for line in table)
    assert any(line.startswith("| absent |") and "not compared: no such run folder" in line for line in table)
    assert all(HOSTILE not in line for line in lines)
    assert lines[0].startswith("a \\[link\\](javascript:x) \\*b\\*\\\\n, test split: "), "the name of the data is a name"


def test_names_are_no_markdown() -> None:
    assert _md("[a](b) `c` *d* _e_ ~f~ <g> &lt; x|y\n\\") == (r"\[a\](b) \`c\` \*d\* \_e\_ \~f\~ &lt;g> &amp;lt; x\|y \\")


def test_no_intervals_are_promised_where_there_are_none(tree: dict[str, Any]) -> None:
    assert "95 % intervals over 30 resamples of patients." in table_md(tree)
    without = {**tree, "bootstrap": {**tree["bootstrap"], "resamples": 0}}
    assert "95 %" not in table_md(without)
    assert "No intervals" in table_md(without)


def test_each_panel_has_its_own_colours_and_shows_zeros(tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that beats the baselines with one figure and loses with another; a figure that is 0 for every run."""
    row = json.loads(json.dumps(tree["runs"][0]))
    row["figures"] = {
        "image": {"auroc": margin(0.9, 0.8, 1.0)},
        "pixel": {"ap": margin(0.2, 0.1, 0.3), "dice": margin(0.0, 0, 0)},
    }
    row["margin"] = {"threshold": {"image": {"auroc": margin(0.2, 0.1, 0.3)}, "pixel": {"ap": margin(-0.2, -0.3, -0.1)}}}
    drawn: list[Any] = []

    def keep(paint: Any, size: tuple[float, float]) -> str:
        drawn.append(Figure(figsize=size))
        paint(drawn[0])
        return ""

    monkeypatch.setattr(compared.d, "draw", keep)
    forest({**tree, "runs": [row]})
    panels = {axes.get_title(): axes for axes in drawn[0].axes}
    assert set(panels) == {"image AUROC", "pixel AP", "Dice"}
    marks = {
        title: [line.get_marker() for line in axes.get_lines() if len(line.get_xdata()) == 1] for title, axes in panels.items()
    }
    assert marks == {"image AUROC": ["o"], "pixel AP": ["X"], "Dice": ["D"]}


def test_a_damaged_picture_is_named(out: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(out, tmp_path / "copy")
    file = tmp_path / "copy" / tree["runs"][0]["pictures"] / "pictures.npz"
    for damaged in (b"PK", file.read_bytes()[:-40], b""):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match="not a complete comparison"):
            write_compared(tmp_path / "copy")


def margin(value: float, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "ci95": [low, high], "n": 9}


def test_below_a_baseline_loses_clearly_or_not() -> None:
    def row(auroc: dict[str, Any], ap: dict[str, Any]) -> dict[str, Any]:
        return {"margin": {"threshold": {"pixel": {"ap": ap}}, "thumbnail": {"image": {"auroc": auroc}}}}

    good = margin(0.2, 0.1, 0.3)
    assert standing(row(good, good)) == ("better", "better than the baselines")
    assert standing(row(margin(0.1, -0.1, 0.3), good)) == ("unclear", "not clearly better than thumbnails: image AUROC +0.100")
    assert standing(row(margin(-0.1, -0.3, 0.1), good)) == ("worse", "loses to thumbnails: image AUROC −0.100 (not clearly)")
    kind, words = standing(row(margin(-0.2, -0.3, -0.1), margin(-0.5, -0.6, -0.4)))
    assert (kind, words) == ("worse", "loses to brightness: pixel AP −0.500; thumbnails: image AUROC −0.200")
    none = {"value": None, "ci95": None, "n": 9, "reason": "needs healthy and diseased images"}
    assert standing(row(none, none)) == ("unclear", "nothing to compare with the baselines")


def test_methods_without_a_map_get_dashes(out: Path, tree: dict[str, Any], tmp_path: Path) -> None:
    none = {"value": None, "ci95": None, "n": 6, "reason": "this detector gives no map"}
    row = json.loads(json.dumps(tree["runs"][3]))
    row["figures"]["pixel"] = dict.fromkeys(row["figures"]["pixel"], none)
    row["margin"]["threshold"]["pixel"] = {}
    changed = {**tree, "runs": [row], "failed": []}
    line = next(line for line in table_md(changed).splitlines() if line.startswith("| fourth |"))
    assert line.split(" | ")[8:11] == ["–", "–", "–"]


def test_a_folder_without_a_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a complete comparison"):
        write_compared(tmp_path)


def test_times_and_memory_in_words() -> None:
    assert [duration(s) for s in (None, 1.23, 61.4, 119.9, 240, 7200)] == ["–", "1.2 s", "61 s", "120 s", "4.0 min", "2.0 h"]
    assert [memory(m) for m in (None, 812.0, 12_345.0)] == ["–", "0.81 GB", "12.35 GB"]
