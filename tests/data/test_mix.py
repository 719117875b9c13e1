from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from healmap.api import mix as write_mix
from healmap.cli.main import main
from healmap.data.dataset import open_dataset
from healmap.data.loader import Loader
from healmap.data.mix import mix
from healmap.data.phantoms import make_phantoms
from healmap.data.table import Row, Table, read_table
from healmap.data.twins import twin_image
from healmap.errors import UsageError
from healmap.experiment import DataConfig
from healmap.types import Needs


def table_of(*patients: tuple[str, int, int], split: str = "train") -> Table:
    """(name, healthy, diseased images) of each patient; no files."""
    rows = [
        Row(f"{split}/{name}_{label}_{k}.png", label, name, split, mask=f"{name}_{k}.png" if label == "diseased" else "")
        for name, healthy, diseased in patients
        for label, count in (("healthy", healthy), ("diseased", diseased))
        for k in range(count)
    ]
    return Table(Path("."), tuple(rows), name="labels.csv")


def joined(*tables: Table) -> Table:
    return Table(Path("."), tuple(r for t in tables for r in t), name="labels.csv")


SINGLES = table_of(*((f"h{k}", 1, 0) for k in range(100)), *((f"d{k}", 0, 1) for k in range(30)))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.7])
def test_the_mixture_has_the_stated_share(share: float) -> None:
    out, notes = mix(SINGLES, healthy_share=share, seed=1)
    kinds = Counter((r.label, r["truth_label"]) for r in out)
    healthy = round(share / (1 - share) * 30)
    assert kinds == +Counter({
        ("unknown", "diseased"): 30, ("unknown", "healthy"): healthy, ("healthy", "healthy"): 100 - healthy,
    })  # fmt: skip
    assert f"{healthy} healthy, 30 diseased" in notes[-1]


def test_equal_seeds_deal_alike_in_any_order_of_rows() -> None:
    def known(table: Table, seed: int) -> set[str]:
        return {r.path for r in mix(table, seed=seed)[0] if r.label == "healthy"}

    turned = Table(Path("."), SINGLES.rows[::-1], name="labels.csv")
    assert known(SINGLES, 3) == known(turned, 3) != known(SINGLES, 4)


def test_validation_and_test_are_left_alone() -> None:
    others = joined(table_of(("v1", 2, 1), split="val"), table_of(("t1", 1, 3), split="test"))
    out, _ = mix(joined(SINGLES, others))
    for before in others:
        after = next(r for r in out if r.path == before.path)
        assert (after.label, after.split, after.mask) == (before.label, before.split, before.mask)
        assert after["truth_label"] == before.label


def test_nobody_is_in_both_sets() -> None:
    ill = [(f"d{k}", 2, 4) for k in range(10)]  # 20 healthy and 40 diseased images of ill patients
    well = [(f"h{k}", 5, 0) for k in range(20)]
    out, _ = mix(table_of(*ill, *well), healthy_share=0.5)
    patients = {label: {r.patient_id for r in out if r.label == label} for label in ("healthy", "unknown")}
    assert not patients["healthy"] & patients["unknown"]
    mixed = [r for r in out if r.label == "unknown"]
    assert Counter(r["truth_label"] for r in mixed) == {"diseased": 40, "healthy": 40}
    assert len(out) == 160  # nothing is left out


def test_what_is_too_much_of_the_ill_is_left_out() -> None:
    table = table_of(*((f"d{k}", 6, 2) for k in range(10)), *((f"h{k}", 5, 0) for k in range(4)))
    out, notes = mix(table, healthy_share=0.5)
    assert Counter((r.label, r["truth_label"]) for r in out) == {
        ("unknown", "diseased"): 20, ("unknown", "healthy"): 20, ("healthy", "healthy"): 20,
    }  # fmt: skip
    assert "40 healthy images of diseased patients left out" in notes[-1]


def test_by_image_a_patient_may_be_in_both() -> None:
    table = table_of(*((f"d{k}", 6, 2) for k in range(10)))
    with pytest.raises(UsageError, match="--by image"):
        mix(table)
    out, _ = mix(table, by="image")
    assert Counter((r.label, r["truth_label"]) for r in out) == {
        ("unknown", "diseased"): 20, ("unknown", "healthy"): 20, ("healthy", "healthy"): 40,
    }  # fmt: skip


def test_what_an_image_is_stays_beside_the_label() -> None:
    out, _ = mix(SINGLES)
    hidden = [r for r in out if r["truth_label"] == "diseased"]
    assert all(r.label == "unknown" and not r.mask and r["truth_mask"] for r in hidden)
    assert {"truth_label", "truth_mask"} <= set(out.columns)
    assert "truth_box" not in out.columns


@pytest.mark.parametrize(
    ("table", "settings", "message"),
    [
        (SINGLES, {"healthy_share": 1.0}, "not from 0 to below 1"),
        (SINGLES, {"healthy_share": -0.1}, "not from 0 to below 1"),
        (SINGLES, {"healthy_share": float("nan")}, "not from 0 to below 1"),
        (SINGLES, {"healthy_share": 0.9}, "needs 270 healthy images"),
        (SINGLES, {"seed": -1}, "seed -1"),
        (SINGLES.select(label="healthy"), {}, "no training image is diseased"),
        (SINGLES.select(label="diseased"), {}, "no training image is healthy"),
        (joined(SINGLES, Table(Path("."), (Row("x.png", "unknown", "x", "train"),))), {}, "1 training images are unknown"),
        (table_of(("d", 0, 10), ("h", 60, 0), ("g", 60, 0)), {}, "share comes to 0.00, not 0.5"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(table: Table, settings: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        mix(table, **settings)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_the_command_line_writes_a_table_that_trains(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = make_phantoms(tmp_path / "set", patients=20, size=32)
    out = tmp_path / "elsewhere" / "mixed.csv"
    words = ["data", "mix", str(tmp_path / "set"), "--out", str(out), "--healthy-share", "0.4", "--seed", "2"]
    assert main(words) == 0
    first = out.read_bytes()
    assert main(words) == 0
    assert out.read_bytes() == first
    assert "healthy share 0.4" in capsys.readouterr().out
    table = read_table(out)
    loader = Loader(open_dataset(table, "train", DataConfig(size=32)), Needs.MIXED_AND_HEALTHY, batch_size=4, seed=0)
    assert "no unknown images" not in loader.describe()
    test = open_dataset(table, "test", DataConfig(size=32, normalisation="none"))
    ill = [i for i, item in enumerate(test.items) if item.label == "diseased"]
    assert ill
    for i in ill:  # masks and twins are found from the new place
        twin, mask = twin_image(test, i), test.mask(i)
        assert np.abs(test.image(i) - twin)[0][~mask].mean() < np.abs(test.image(i) - twin)[0][mask].mean()
    truth = [r["truth_mask"] for r in table if r.label == "unknown" and r["truth_label"] == "diseased"]
    assert truth
    assert all((table.root / m).is_file() for m in truth)
    assert {r.path for r in source} == {r.path for r in read_table(tmp_path / "set")}


def test_the_labels_are_never_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    table = make_phantoms(tmp_path / "set", patients=10, size=32)
    before = (table.root / "labels.csv").read_bytes()
    assert main(["data", "mix", str(table.root), "--out", str(table.root / "labels.csv")]) == 2
    assert "overwrite" in capsys.readouterr().err
    assert (table.root / "labels.csv").read_bytes() == before
    assert main(["data", "mix", str(table.root), "--out", str(tmp_path / "m.csv"), "--healthy-share", "1.5"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("healmap: healthy share 1.5")
    assert error.count("\n") == 1
    assert not (tmp_path / "m.csv").exists()


def test_a_table_without_splits_gets_them(tmp_path: Path) -> None:
    rows = tuple(Row(f"{n}.png", "healthy" if n % 3 else "diseased", str(n)) for n in range(60))
    said: list[str] = []
    out = write_mix(Table(tmp_path, rows), tmp_path / "mixed.csv", tell=said.append)
    assert "no splits" in said[0]
    assert {r.split for r in out} == {"train", "val", "test"}
    assert not any(r.label == "unknown" for r in out if r.split != "train")
