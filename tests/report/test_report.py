from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import make_run
from pages import HOSTILE, HOSTILE_FILE, Reader, hostile_data

from healmap.errors import UsageError
from healmap.evaluation.evaluate import evaluate_run
from healmap.report.comparison import write_comparison
from healmap.report.page import interval, number, read_evaluation, write_page
from healmap.report.report import write_report
from healmap.report.verdict import clear, kind_of, summary, verdicts


@pytest.fixture(scope="module")
def page(folders: tuple[Path, Path]) -> str:
    return write_report(folders[0]).read_text()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """Two evaluations of the same images; names in the data try to break the page."""
    base = tmp_path_factory.mktemp("report")
    data = base / "data"
    hostile_data(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEALMAP_CACHE", str(base / "cache"))
        run = make_run(base / "run", patch, size=48)
        (run / "log.csv").write_text("phase,step,lr,G.id,val.auroc\na,10,1,0.5,\na,20,1,0.4,0.8\na,30,1,0.3,0.9\n")
        for name in ("one", "two"):
            evaluate_run(run, data, "test", base / name, device="cpu", bootstrap=30)
        yield base / "one", base / "two"


def test_the_page_is_complete_and_runs_nothing(page: str) -> None:
    found = Reader(page)
    assert not {"script", "iframe", "object", "link", "form"} & {tag for tag, _ in found.tags}
    for tag, attributes in found.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "data:").startswith("data:image/png;base64,") or attributes.get(name) is None
    policy = next(a["content"] for t, a in found.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "http://" not in page
    assert "https://" not in page


def test_names_from_the_data_are_text(page: str) -> None:
    assert HOSTILE not in page
    assert HOSTILE in "".join(Reader(page).words)
    assert HOSTILE_FILE in "".join(Reader(page).words)


def test_the_page_says_what_the_figures_say(folders: tuple[Path, Path], page: str) -> None:
    found = read_evaluation(folders[0])
    words = " ".join(" ".join(Reader(page).words).split())
    for path in (("image", "auroc"), ("pixel", "dice"), ("pixel", "dice_best"), ("lesion", "sensitivity_at_1fp")):
        assert number(found.metrics[path[0]][path[1]]["value"]) in words
    for text in ("Found best", "Missed most", "False alarms", "best F1 on the validation images", "not a medical device",
                 "Neither knows anatomy", "Training", found.protocol["weights"]["sha256"]):  # fmt: skip
        assert text in words, text


def test_comparison_shows_the_same_images_for_every_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    page = write_comparison({"first": folders[0], "second": folders[1]}, tmp_path / "page.html").read_text()
    words = " ".join(Reader(page).words)
    common = [row for row in read_evaluation(folders[0]).rows if "common" in row["roles"]]
    assert len(common) == 5  # three diseased patients, two healthy ones
    assert page.count("healed by first") == page.count("healed by second") == len(common)
    assert "first and second" in words
    assert HOSTILE not in page


def test_comparison_of_different_images_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    import json
    import shutil

    other = tmp_path / "other"
    shutil.copytree(folders[1], other)
    metrics = json.loads((other / "metrics.json").read_text())
    metrics["protocol"]["data"]["fingerprint"] = "another"
    (other / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(UsageError, match="other images"):
        write_comparison({"a": folders[0], "b": other}, tmp_path / "page.html")
    with pytest.raises(UsageError, match="nothing to compare"):
        write_comparison({}, tmp_path / "page.html")


def test_an_incomplete_evaluation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a complete evaluation"):
        write_report(tmp_path)


def margin(low: float, high: float) -> dict:
    return {"value": (low + high) / 2, "ci95": [low, high], "n": 9}


def test_verdicts_follow_the_paired_interval() -> None:
    assert kind_of(margin(0.01, 0.3)) == "better"
    assert kind_of(margin(-0.1, 0.3)) == "unclear"
    assert kind_of(margin(-0.3, -0.01)) == "worse"
    assert (kind_of(margin(-0.3, 0.1)), clear(margin(-0.3, 0.1))) == ("worse", False), "below, though not clearly: it loses"
    assert kind_of({"value": 0.2, "ci95": None}) == "unclear"
    assert kind_of({"value": 0.0, "ci95": [-0.2, -0.1]}) == "unclear"
    assert kind_of({"value": -0.2, "ci95": None}) == "worse"

    def tree(low: float, high: float) -> dict:
        figure = {"auroc": margin(0.6, 0.7)}
        return {
            "image": figure,
            "baseline": {"thumbnail": {"image": figure}},
            "margin": {"thumbnail": {"image": {"auroc": margin(low, high)}}},
        }

    lost = verdicts(tree(-0.3, -0.1))
    assert "is worse than a logistic regression on thumbnails" in lost[0].text
    assert "loses to a trivial baseline" in summary(lost).text  # type: ignore[union-attr]
    below = verdicts(tree(-0.3, 0.1))
    assert "is below, though not clearly, a logistic regression" in below[0].text
    assert summary(below).kind == "worse", "as in the table of a comparison"  # type: ignore[union-attr]
    assert summary(verdicts(tree(0.1, 0.2))).kind == "better"  # type: ignore[union-attr]
    assert summary([]) is None


def test_figures_are_written_for_reading() -> None:
    assert number(0.12345) == "0.123"
    assert number(0.00142, percent=True) == "0.14 %"
    assert number(None) == "–"
    assert number(0.00042) == "0.00042"
    assert number(0.0) == "0.000"
    assert interval({"ci95": [0.1, 0.25]}) == "0.100 to 0.250"
    assert interval({"ci95": None}) == interval(None) == ""


def test_templates_refuse_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="undefined"):
        write_page("report.html", tmp_path / "x.html")
    assert not (tmp_path / "x.html").exists()
