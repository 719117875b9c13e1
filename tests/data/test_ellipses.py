from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pil
from scipy.ndimage import map_coordinates
from skimage.filters import threshold_otsu
from sklearn.metrics import roc_auc_score

from healmap.cli.main import main
from healmap.data import ellipses, made
from healmap.data.dataset import open_dataset
from healmap.data.ellipse_scenes import CENTRES, HALF, SIDE, SIGMA, Scene, displaced, fair_picture, smoothed, smoothing
from healmap.data.ellipses import make_ellipses, pictures, scene
from healmap.data.leaks import refuse_leaks
from healmap.data.table import Table, read_table
from healmap.data.twins import twin_image
from healmap.errors import UsageError, WriteError
from healmap.experiment import DataConfig

PLAIN = DataConfig(size=64, normalisation="none")


def digest(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Table:
    return make_ellipses(tmp_path_factory.mktemp("ellipses") / "set", train=4, val=3, test=5, size=64, seed=2)


# ---- what the folder holds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["fair", "published"])
def test_equal_arguments_give_equal_bytes_whatever_the_threads(tmp_path: Path, variant: str) -> None:
    for name, workers, seed in (("a", 1, 3), ("b", 3, 3), ("c", 1, 4)):
        make_ellipses(tmp_path / name, train=3, val=1, test=2, size=32, seed=seed, variant=variant, workers=workers)
    a, b, c = (digest(tmp_path / n) for n in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(c[n] != h for n, h in a.items() if n.startswith("images"))


def test_a_picture_does_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    few = make_ellipses(tmp_path / "few", train=0, val=0, test=1, size=32)
    many = make_ellipses(tmp_path / "many", train=2, val=1, test=2, size=32)
    for row in few:
        assert (few.root / row.path).read_bytes() == (many.root / row.path).read_bytes()


def test_the_table_is_what_was_asked_for(small: Table) -> None:
    table = read_table(small.root)
    assert [r.path for r in table] == [r.path for r in small]
    counts = {(s, c): len(table.select(split=s, label=c)) for s in ("train", "val", "test") for c in ("healthy", "diseased")}
    assert list(counts.values()) == [4, 4, 3, 3, 5, 5]
    assert len({r.patient_id for r in table}) == len(table)
    assert all(
        bool(r["twin"]) == bool(r["truth"]) == bool(r.mask) == (r.label == "diseased" and r.split != "train") for r in table
    )
    opened = {split: open_dataset(table, split, PLAIN) for split in ("train", "val", "test")}
    assert refuse_leaks(opened, allow=False) == []
    assert not any(d.warnings for d in opened.values())


def test_truth_mask_and_twin_belong_to_the_image(small: Table) -> None:
    facts = json.loads((small.root / "dataset.json").read_text())
    data, levels = open_dataset(small, "test", PLAIN), []
    for i, item in enumerate(data.items):
        if item.label == "healthy":
            assert twin_image(data, i) is None
            continue
        truth = np.load(small.root / item.row["truth"])
        assert truth.dtype == np.float32
        twin = twin_image(data, i)
        assert twin is not None
        np.testing.assert_allclose(data.image(i)[0] - twin[0], truth, atol=4 / 65535)
        assert np.array_equal(data.mask(i), np.abs(truth) > facts["mask_threshold"])
        x, y = map(float, item.row["centre"].split(","))
        assert np.hypot(*(np.argwhere(data.mask(i)).mean(0) - (y, x))) < 6
    for row in small:
        if row["truth"]:
            levels.append(threshold_otsu(np.abs(np.load(small.root / row["truth"])).astype(float)))
    assert facts["mask_threshold"] == facts["mean_otsu"] == pytest.approx(np.mean(levels), abs=0.01)


def test_values_reach_the_reader_unscaled(small: Table) -> None:
    data = open_dataset(small, "val", PLAIN)
    for i, item in enumerate(data.items):
        number, ill = int(item.patient_id.removeprefix("val_")), item.label == "diseased"
        wanted = fair_picture(scene("val", number, 2, "fair"), 64, diseased=ill)
        np.testing.assert_allclose(data.image(i)[0], wanted, atol=1 / 65535)


def test_pairs_keep_twins_in_training(tmp_path: Path) -> None:
    table = make_ellipses(tmp_path / "set", train=2, val=0, test=0, size=32, pairs=True)
    ill = table.select(label="diseased")
    assert all((table.root / r["twin"]).is_file() and (table.root / r.mask).is_file() for r in ill)
    assert json.loads((table.root / "dataset.json").read_text())["mask_threshold"] > 0


def test_published_files_keep_what_gives_the_class_away(tmp_path: Path) -> None:
    table = make_ellipses(tmp_path / "set", train=3, val=0, test=1, size=64, variant="published")
    for row in table:
        pixels = np.asarray(Pil.open(table.root / row.path))
        assert (pixels.min() == 0) == (row.label == "healthy")  # stretched to [-1, 1], or as drawn
    row = table.select(split="test", label="diseased").rows[0]
    healthy, diseased, truth = pictures(scene("test", 1, 0, "published"), 64, "published")
    np.testing.assert_allclose(np.load(table.root / row["truth"]), truth, atol=1e-6)
    assert np.abs(truth - (diseased - healthy)).mean() > 0.05
    mask = np.asarray(Pil.open(table.root / row.mask)) > 0
    assert np.array_equal(mask, np.abs(truth.astype(np.float32)) > 0.44195)


# ---- what a scene is ---------------------------------------------------------------------------------------------------------


def scenes(variant: str, count: int = 200) -> list[Scene]:
    return [scene("train", k, 0, variant) for k in range(count)]


def test_fair_scenes_lie_inside_and_hide_nothing_in_the_waves() -> None:
    found = scenes("fair")
    t = np.linspace(0, 2 * np.pi, 500)
    for s in found:
        assert (s.wave2.row, s.wave2.column) == (s.large.row, s.large.column)
        assert math.dist((s.small.row, s.small.column), (s.large.row, s.large.column)) > 120
        for e in (s.small, s.large):
            assert CENTRES[0] <= min(e.row, e.column) <= max(e.row, e.column) < CENTRES[1]
            p, q = e.a * np.cos(t), e.b * np.sin(t)
            for middle, reach in ((e.row, np.cos(e.angle) * p - np.sin(e.angle) * q),
                                  (e.column, np.sin(e.angle) * p + np.cos(e.angle) * q)):  # fmt: skip
                assert 0 <= (middle + reach).min() <= (middle + reach).max() <= SIDE - 1
    for wave, ellipse in ((lambda s: s.wave1.row, lambda s: s.small.column), (lambda s: s.wave1.column, lambda s: s.small.row)):
        assert abs(np.corrcoef([wave(s) for s in found], [ellipse(s) for s in found])[0, 1]) < 0.2


def test_published_scenes_mirror_the_small_ellipse_and_wrap_around() -> None:
    found = scenes("published")
    assert all((s.wave1.row, s.wave1.column) == (s.small.column, s.small.row) for s in found)
    assert any(e.row - e.reach()[0] < 0 for s in found for e in (s.small, s.large))


def test_disease_pulls_the_small_ellipse_together() -> None:
    s = scene("test", 1, 0, "fair")
    rho = np.linspace(0.01, 200, 4000)
    row, _ = displaced(s, s.small.row + rho, np.full_like(rho, s.small.column))
    push = row - s.small.row - rho
    assert push.max() == pytest.approx(0.1 * HALF, rel=1e-6)
    assert rho[push.argmax()] == pytest.approx(SIGMA * HALF, abs=0.1)
    assert np.diff(rho + push).min() > 0  # never folds
    healthy, diseased = (fair_picture(s, SIDE, diseased=ill) for ill in (False, True))
    grid = np.mgrid[:SIDE, :SIDE].astype(float)
    looked_up = map_coordinates(healthy, displaced(s, grid[0], grid[1]), order=3, mode="nearest")
    assert np.corrcoef(looked_up.ravel(), diseased.ravel())[0, 1] > 0.985
    far = np.hypot(grid[0] - s.small.row, grid[1] - s.small.column) > 6 * SIGMA * HALF
    assert np.abs(diseased - healthy)[far].max() < 1e-5


def test_smoothing_is_the_scripts_and_follows_the_size() -> None:
    spot = np.zeros((9, 9))
    spot[4, 4] = 1
    assert smoothed(spot)[3:6, 3:6].round(4).tolist() == [
        [0.1019, 0.1154, 0.1019],
        [0.1154, 0.1308, 0.1154],
        [0.1019, 0.1154, 0.1019],
    ]
    variance = 2 * smoothing()[0]
    for size in (32, 100, 384):
        w, times = smoothing(size)
        assert 0 < w < 0.32
        assert 2 * w * times == pytest.approx(variance * (size / 256) ** 2)
    assert np.allclose(smoothed(np.full((8, 8), 0.3)), 0.3)  # the border keeps its grey


# ---- shortcuts ---------------------------------------------------------------------------------------------------------------


def border(x: np.ndarray, _: Scene) -> float:
    """Contrast of the outermost pixels against that two pixels further in; no matter how the picture is scaled."""

    def ring(d: int) -> float:
        y = x[d : len(x) - d, d : len(x) - d]
        return float(np.concatenate([y[0], y[-1], y[:, 0], y[:, -1]]).std())

    return ring(0) / ring(2)


def minimum(x: np.ndarray, _: Scene) -> float:
    return float(x.min())


def sharpness_far(x: np.ndarray, s: Scene) -> float:
    """Second differences over one pixel against those over two, more than 110 of 256 pixels away from the small ellipse."""
    n = len(x)
    place = (np.arange(2, n - 2) + 0.5) * SIDE / n - 0.5
    far = np.hypot(place[:, None] - s.small.row, place - s.small.column) > 110

    def second(k: int) -> float:
        inner = slice(2, n - 2)
        rows, columns = (np.roll(x, k, axis) + np.roll(x, -k, axis) - 2 * x for axis in (0, 1))
        return float((np.abs(rows) + np.abs(columns))[inner, inner][far].mean())

    return second(1) / second(2)


SHORTCUTS: tuple[Callable[[np.ndarray, Scene], float], ...] = (border, minimum, sharpness_far)


def areas(variant: ellipses.Variant, size: int, count: int, *, same_scenes: bool) -> dict[str, float]:
    """AUC of each shortcut for telling diseased from healthy. same_scenes: every scene in both versions, so that chance
    differences between scenes cancel; otherwise as a set has them, each scene in one."""
    values: dict[str, tuple[list[float], list[float]]] = {f.__name__: ([], []) for f in SHORTCUTS}
    for k in range(count):
        for ill in (0, 1):
            s = scene("train", k if same_scenes else 2 * k + ill, 0, variant)
            if variant == "fair":
                picture = fair_picture(s, size, diseased=bool(ill))
            else:
                picture = pictures(s, size, variant)[ill]
            for f in SHORTCUTS:
                values[f.__name__][ill].append(f(picture, s))
    found = {name: roc_auc_score([0] * count + [1] * count, h + d) for name, (h, d) in values.items()}
    print(f"{variant}, {size} px, {count} per class, same scenes {same_scenes}:", {k: round(v, 3) for k, v in found.items()})
    return found


@pytest.mark.parametrize(("size", "count", "same_scenes"), [(256, 100, True), (64, 200, True), (64, 400, False)])
def test_on_fair_no_shortcut_separates_the_classes(size: int, count: int, same_scenes: bool) -> None:
    assert all(abs(auc - 0.5) <= 0.05 for auc in areas("fair", size, count, same_scenes=same_scenes).values())


def test_on_published_they_do() -> None:
    found = areas("published", SIDE, 60, same_scenes=False)
    assert found["minimum"] == 1.0  # the range alone tells
    assert found["border"] < 0.05  # zeros are drawn in
    assert found["sharpness_far"] < 0.05  # the zoom by 256 / 255 smooths everything


# ---- as a user runs it -------------------------------------------------------------------------------------------------------


def test_the_command_line_makes_a_set(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["data", "make", "ellipses", str(tmp_path / "set"), "--train", "2", "--val", "1", "--test", "1", "--size", "32"]
    assert main([*words, "--variant", "published", "--pairs"]) == 0
    assert "8 images" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "set")]) == 0
    assert "no faults, no warnings" in capsys.readouterr().out
    before = digest(tmp_path / "set")
    assert main(words) == 2  # made already
    assert "not empty" in capsys.readouterr().err
    assert digest(tmp_path / "set") == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "16"], "16 pixels"),
        (["--size", "4096"], "4096 pixels"),
        (["--train", "-1"], "train -1"),
        (["--train", "0", "--val", "0", "--test", "0"], "that many"),
        (["--seed", "-3"], "seed -3"),
    ],
)
def test_strange_requests_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, words: list[str], message: str
) -> None:
    assert main(["data", "make", "ellipses", str(tmp_path / "set"), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_an_unknown_variant_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no variant 'unfair'"):
        make_ellipses(tmp_path / "set", variant="unfair")  # type: ignore[arg-type]


def test_a_set_is_whole_or_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    def full_disk(path: Path, array: np.ndarray) -> None:
        if len(written) > 5:
            raise OSError(28, "No space left on device")
        written.append(path)
        made.save_png(path, array)

    monkeypatch.setattr(ellipses, "save_png", full_disk)
    with pytest.raises(WriteError, match="No space left"):
        make_ellipses(tmp_path / "set", train=4, val=1, test=1, size=32)
    assert not list(tmp_path.iterdir())
