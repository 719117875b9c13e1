"""Splitting a table by patient, with the same share of diseased patients in every part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..errors import UsageError
from ..types import DISEASED, HEALTHY, SPLITS, UNKNOWN
from .table import COLUMNS, Table


def split_table(table: Table, fractions: Sequence[float] = (0.7, 0.1, 0.2), seed: int = 0) -> Table:
    """``table`` with the column ``split`` filled anew: train, val, test in these shares of the patients.

    Patients with a diseased image, with healthy images, and with unknown ones only are divided separately. A row without
    patient is a patient of its own. Every part with a positive share gets a patient of each kind if there are enough of them.
    The result depends on the patients' names and labels and on the seed, not on the order of rows.

    Raises:
        UsageError: the shares are not three numbers that make 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        given = ", ".join(f"{f:g}" for f in fractions)
        raise UsageError(f"the shares {given} are not three numbers that make 1", hint="use for example 0.7,0.1,0.2")
    labels: dict[str, set[str]] = {}
    for row in table:
        labels.setdefault(_patient(row.patient_id, row.path), set()).add(row.label)
    groups: dict[str, list[str]] = {DISEASED: [], HEALTHY: [], UNKNOWN: []}
    for patient in sorted(labels):
        groups[next((k for k in (DISEASED, HEALTHY) if k in labels[patient]), UNKNOWN)].append(patient)
    split: dict[str, str] = {}
    for number, patients in enumerate(groups.values()):
        order = np.random.default_rng([seed, number]).permutation(len(patients))
        counts = apportion(len(patients), fractions)
        parts = np.repeat(np.array(SPLITS), counts)
        split.update({patients[i]: str(part) for i, part in zip(order, parts, strict=True)})
    rows = tuple(replace(r, split=split[_patient(r.patient_id, r.path)]) for r in table)
    columns = table.columns if "split" in table.columns else (*table.columns, *(c for c in COLUMNS if c not in table.columns))
    slices = {owner: tuple(replace(s, split="") for s in planes) for owner, planes in table.slices.items()}
    return replace(table, rows=rows, columns=columns, slices=slices)


def apportion(count: int, fractions: Sequence[float]) -> list[int]:
    """``count`` patients in these shares: by largest remainder; at least one for every positive share, if there are enough."""
    exact = [count * f for f in fractions]
    whole = [int(e + 1e-9) for e in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
    for i in by_remainder[: count - sum(whole)]:
        whole[i] += 1
    wanting = [i for i, f in enumerate(fractions) if f > 0 and whole[i] == 0]
    if count >= sum(f > 0 for f in fractions):
        for i in wanting:
            whole[int(np.argmax(whole))] -= 1
            whole[i] += 1
    return whole


def _patient(patient_id: str, path: str) -> str:
    # A file of its own must not meet a patient who happens to be called like it.
    return f"patient {patient_id}" if patient_id else f"file {path}"
