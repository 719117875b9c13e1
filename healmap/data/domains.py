"""Label domains: what a generator is conditioned on, read from a column of the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..experiment import DataConfig
from ..types import DISEASED, HEALTHY, Domains
from .table import Row, Table

_YES, _NO = {"1", "1.0", "true", "yes"}, {"0", "0.0", "-1", "-1.0", "false", "no", ""}  # -1: as CelebA writes it


class Labelled(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def row(self) -> Row: ...


def domains_of(table: Table, config: DataConfig) -> Domains:
    """The domains that ``config.domain_column`` asks for.

    ``label``: healthy, diseased. ``class``, or any other column: the classes of diseased rows, by name, after the healthy one.
    ``attributes``: the named columns, several at once.

    Raises:
        UsageError: the column is not there, or a diseased row has no class.
    """
    where = table.name or str(table.root)
    if config.domain_column == "label":
        return Domains()
    if config.domains:
        return _named(table, config, where)
    if config.domain_column == "attributes":
        missing = [a for a in config.attributes if a not in table.columns]
        if missing or not config.attributes:
            text = f"no column '{missing[0]}' for attribute" if missing else "no attribute named"
            raise UsageError(text, where=where, hint=f"set data.attributes; columns: {', '.join(table.columns)}")
        return Domains(config.attributes, exclusive=False)
    if config.domain_column not in table.columns:
        hint = "domain_column is label, attributes, or a column of the table"
        raise UsageError(f"no column '{config.domain_column}'", where=where, hint=hint)
    column = config.domain_column
    healthy = sorted({r[column] for r in table if r.label == HEALTHY and r[column]})
    others = {r[column] for r in table if r.label == DISEASED}
    if "" in others:
        first = next(r for r in table if r.label == DISEASED and not r[column])
        raise UsageError(f"a diseased row has no {column}", where=table.where(first), hint="fill the cell")
    name = healthy[0] if len(healthy) == 1 and healthy[0] not in others else HEALTHY
    # Planes of a diseased volume may be healthy although no row is; so the healthy class always exists.
    return Domains((name, *sorted(others - {name})))


def _named(table: Table, config: DataConfig, where: str) -> Domains:
    """The domains that ``config.domains`` lists, each of which some row must belong to."""
    column, names = config.domain_column, config.domains
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise UsageError(f"data.domains names {', '.join(names)}", where=where, hint="translation needs two or more, each once")
    if column == "attributes" or column not in table.columns:
        hint = f"columns: {', '.join(table.columns)}"
        raise UsageError(f"data.domains needs a column, and '{column}' is none", where=where, hint=hint)
    there = {r[column] for r in table}
    for name in names:
        if name not in there:
            hint = f"it holds: {', '.join(sorted(there)[:10])}"
            raise UsageError(f"no row has {column} '{name}'", where=where, hint=hint)
    return Domains(names)


def codes(items: Sequence[Labelled], config: DataConfig, domains: Domains) -> NDArray[Any]:
    """Exclusive: (N,) int64, 0 healthy (or the first of ``config.domains``), -1 unknown. Attributes: (N, K) float32, 0 or 1.

    Raises:
        UsageError: a class that the domains lack, or a cell that is neither yes nor no.
    """
    if not domains.exclusive:
        cells = [[_yes_no(i.row, a) for a in domains.names] for i in items]
        return np.array(cells, np.float32).reshape(len(items), len(domains.names))
    number = {name: k for k, name in enumerate(domains.names)}
    out = np.full(len(items), -1, np.int64)
    for n, item in enumerate(items):
        if config.domains:
            out[n] = number.get(item.row[config.domain_column], -1)
            continue
        if item.label == HEALTHY:
            out[n] = 0
        elif item.label == DISEASED:
            name = DISEASED if config.domain_column == "label" else item.row[config.domain_column]
            if name not in number:
                known = ", ".join(domains.names)
                raise UsageError(f"class '{name}' was not trained", where=item.row.path, hint=f"known: {known}")
            out[n] = number[name]
    return out


def _yes_no(row: Row, column: str) -> float:
    text = row[column].lower()
    if text in _YES or text in _NO:
        return float(text in _YES)
    raise UsageError(f"{column} is '{row[column]}'", where=f"line {row.line}, {row.path}", hint="write 1 or 0")
