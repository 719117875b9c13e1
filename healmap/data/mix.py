"""The protocol of A2B-GAN and its kin from any labelled table: a set known to be healthy, and an unlabelled mixture.

Training rows only. Set B keeps the label ``healthy``; those of the mixture, set A, become ``unknown``. What an image truly is
stays in columns that no training reads: ``truth_label``, ``truth_mask``, ``truth_box``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from ..errors import UsageError
from ..types import DISEASED, HEALTHY, UNKNOWN
from .faults import refuse, table_faults
from .split import split_table
from .table import Row, Table

NEAR = 0.05  # how far the share may be off; ours: whole patients seldom make it exactly
KEPT_ASIDE = ("truth_label", "truth_mask", "truth_box")


def mix(
    table: Table, *, healthy_share: float = 0.5, by: Literal["patient", "image"] = "patient", seed: int = 0
) -> tuple[Table, list[str]]:
    """(``table`` with hidden labels, what was done in sentences).

    Set A holds all diseased training images and as many healthy ones as make ``healthy_share`` of it; set B the other healthy
    ones. Validation and test rows stay as they are.

    by: ``patient``: nobody is in both sets. The healthy images of diseased patients belong to A (those above the share are left
    out), and whole healthy patients join until the share is met as nearly as whole patients can. ``image``: healthy images are
    dealt out singly.

    Raises:
        UsageError: a share that is none, no labels to hide, too few images.
    """
    where = table.name or str(table.root)
    if not 0 <= healthy_share < 1:
        raise UsageError(
            f"healthy share {healthy_share:g} is not from 0 to below 1", hint="the mixture needs diseased images too"
        )
    if seed < 0 or by not in ("patient", "image"):
        raise UsageError(f"seed {seed}, by '{by}'", hint="a seed of 0 or more, by patient or image")
    if table.slices:
        hint = "hide labels while training instead: data.healthy_share"
        raise UsageError("slices.csv labels planes, and a mixture is made of whole files", where=where, hint=hint)
    refuse(table_faults(table, files=False), where)
    notes: list[str] = []
    if not any(r.split for r in table):
        table = split_table(table, seed=seed)
        notes.append(f"the table has no splits: split by patient 70/10/20 with seed {seed}")
    train = sorted(table.select(split="train").rows, key=lambda r: r.path)
    rows = {label: [r for r in train if r.label == label] for label in (HEALTHY, DISEASED, UNKNOWN)}
    if rows[UNKNOWN]:
        hint = "a stated share needs known labels: label or remove them"
        raise UsageError(f"{len(rows[UNKNOWN])} training images are unknown already", where=where, hint=hint)
    for label in (HEALTHY, DISEASED):
        if not rows[label]:
            raise UsageError(f"no training image is {label}", where=where, hint="the protocol needs both kinds")
    wanted = round(healthy_share / (1 - healthy_share) * len(rows[DISEASED]))
    rng = np.random.default_rng([seed, 5])
    own = {_patient(r) for r in rows[DISEASED]} if by == "patient" else set()
    joining, left_out = _deal(rows[HEALTHY], own, wanted, by, rng)
    mixed = {r.path for r in (*rows[DISEASED], *joining)}
    dropped = {r.path for r in left_out}
    known = len(rows[HEALTHY]) - len(joining) - len(left_out)
    share = len(joining) / len(mixed)
    hint = "ask for another share" + (", or deal out single images: --by image" if by == "patient" else "")
    if not known:
        text = (
            f"the mixture needs {wanted} healthy images beside {len(rows[DISEASED])} diseased ones, and the known set some more"
        )
        there = f"{len(rows[HEALTHY]) - len(left_out)} of {len(rows[HEALTHY])} can be used"
        raise UsageError(f"{text}, but {there}", where=where, hint=hint)
    if abs(share - healthy_share) > NEAR:
        raise UsageError(f"the share comes to {share:.2f}, not {healthy_share:g}", where=where, hint=hint)
    sets = f"set B: {known} known healthy images; set A, labels hidden: {len(joining)} healthy, {len(rows[DISEASED])} diseased"
    notes.append(f"{sets} (healthy share {share:.3f}); by {by}, seed {seed}")
    if dropped:
        notes.append(f"{len(dropped)} healthy images of diseased patients left out, to keep the share")
    kept = tuple(_hidden(r) if r.path in mixed else _shown(r) for r in table if r.path not in dropped)
    columns = (*table.columns, *(c for c in KEPT_ASIDE if c not in table.columns and any(r[c] for r in kept)))
    return replace(table, rows=kept, columns=columns), notes


def _deal(healthy: Sequence[Row], own: set[str], wanted: int, by: str, rng: np.random.Generator) -> tuple[list[Row], list[Row]]:
    """(healthy rows that join the mixture, healthy rows that serve nowhere). own: the diseased patients."""
    theirs = [r for r in healthy if _patient(r) in own]
    order = rng.permutation(len(theirs))
    joining = [theirs[i] for i in order[:wanted]]
    left_out = [theirs[i] for i in order[wanted:]]
    groups: dict[str, list[Row]] = {}
    for row in healthy:
        if _patient(row) not in own:
            groups.setdefault(_patient(row) if by == "patient" else row.path, []).append(row)
    names = sorted(groups)
    for i in rng.permutation(len(names)):
        group, missing = groups[names[i]], wanted - len(joining)
        if abs(missing - len(group)) < missing:
            joining += group
    return joining, left_out


def _patient(row: Row) -> str:
    return f"patient {row.patient_id}" if row.patient_id else f"file {row.path}"


def _hidden(row: Row) -> Row:
    extra = {**row.extra, "truth_label": row.label, "truth_mask": row.mask, "truth_box": row.box}
    return replace(row, label=UNKNOWN, mask="", box="", extra=extra)


def _shown(row: Row) -> Row:
    return replace(row, extra={**row.extra, "truth_label": row.label})
