from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from healmap.data.split import apportion, split_table
from healmap.data.table import Row, Table
from healmap.errors import UsageError

LABEL = st.sampled_from(["healthy", "diseased", "unknown"])
ROWS = st.lists(st.tuples(st.integers(0, 40), LABEL), min_size=1, max_size=200)
FRACTIONS = (0.7, 0.1, 0.2)


def table_of(rows: list[tuple[int, str]]) -> Table:
    made = [Row(f"{k}.png", label, f"p{patient}" if patient else "") for k, (patient, label) in enumerate(rows)]
    return Table(Path(), tuple(made))


def group_of(labels: set[str]) -> str:
    return "diseased" if "diseased" in labels else "healthy" if "healthy" in labels else "unknown"


@settings(max_examples=150, deadline=None)
@given(ROWS, st.integers(0, 2**31))
def test_patients_stay_together_and_shares_hold_in_every_group(rows: list[tuple[int, str]], seed: int) -> None:
    table = split_table(table_of(rows), FRACTIONS, seed)
    splits: dict[str, set[str]] = {}
    labels: dict[str, set[str]] = {}
    for row in table:
        name = row.patient_id or row.path
        splits.setdefault(name, set()).add(row.split)
        labels.setdefault(name, set()).add(row.label)
    assert all(len(of) == 1 for of in splits.values())
    assert len(table) == len(rows)
    for group in ("healthy", "diseased", "unknown"):
        members = [p for p in labels if group_of(labels[p]) == group]
        counts = [sum(splits[p] == {s} for p in members) for s in ("train", "val", "test")]
        assert sum(counts) == len(members)
        # Within one patient of the share, or two where a part that would be empty was given one.
        assert all(abs(n - f * len(members)) < 2 for n, f in zip(counts, FRACTIONS, strict=True))
        if len(members) >= 3:
            assert min(counts) >= 1


@settings(max_examples=50, deadline=None)
@given(ROWS, st.integers(0, 2**31), st.randoms())
def test_the_split_depends_on_patients_and_seed_not_on_order(rows: list[tuple[int, str]], seed: int, random: object) -> None:
    table = table_of(rows)
    shuffled = list(table.rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first = {r.path: r.split for r in split_table(table, seed=seed)}
    again = {r.path: r.split for r in split_table(Table(Path(), tuple(shuffled)), seed=seed)}
    assert first == again


def test_seeds_differ() -> None:
    table = table_of([(k, "healthy") for k in range(1, 40)])
    assert [r.split for r in split_table(table, seed=0)] != [r.split for r in split_table(table, seed=1)]


def test_many_patients_meet_the_shares_exactly() -> None:
    table = split_table(table_of([(k, "diseased" if k % 2 else "healthy") for k in range(1, 201)]))
    for label in ("healthy", "diseased"):
        assert [sum((r.label, r.split) == (label, s) for r in table) for s in ("train", "val", "test")] == [70, 10, 20]


@pytest.mark.parametrize(
    ("count", "fractions", "expected"),
    [(10, (0.7, 0.1, 0.2), [7, 1, 2]), (3, (0.7, 0.1, 0.2), [1, 1, 1]), (1, (0.7, 0.1, 0.2), [1, 0, 0]),
     (5, (1, 0, 0), [5, 0, 0]), (4, (0.5, 0.0, 0.5), [2, 0, 2]), (0, (0.7, 0.1, 0.2), [0, 0, 0])],
)  # fmt: skip
def test_apportion(count: int, fractions: tuple[float, ...], expected: list[int]) -> None:
    assert apportion(count, fractions) == expected


@pytest.mark.parametrize("fractions", [(0.7, 0.1), (0.7, 0.1, 0.1), (1.2, -0.1, -0.1)])
def test_shares_that_do_not_add_up_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match="make 1"):
        split_table(table_of([(1, "healthy")]), fractions)


def test_the_split_column_is_added_when_written() -> None:
    table = Table(Path(), (Row("a.png", "healthy", extra={"age": "5"}),), ("path", "label", "age"))
    assert "split" in split_table(table).columns
