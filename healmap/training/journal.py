"""What a run writes as it goes: ``log.csv`` (what was learnt), ``timing.csv`` (how fast), TensorBoard if wanted."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import MissingDependencyError, WriteError
from ..io.atomic import write_text

FIXED = ["phase", "step", "lr"]
TIMING = ["step", "seconds", "images_per_second"]


class Journal:
    """``log.csv``: one row per log interval or validation; columns are added when a new name first arises.

    Rows hold no clock, so that a resumed run's log equals the uninterrupted one's byte by byte.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = False) -> None:
        self.path, self.timing_path = folder / "log.csv", folder / "timing.csv"
        self.columns, self.rows = list(FIXED), 0
        self._board = _tensorboard(folder / "tensorboard") if tensorboard else None

    def start(self) -> None:
        write_text(self.path, _line(self.columns))
        write_text(self.timing_path, _line(TIMING))

    def write(self, phase: str, step: int, lr: float, values: Mapping[str, float]) -> None:
        fresh = [name for name in values if name not in self.columns]
        if fresh:
            self._widen(fresh)
        cells = {"phase": phase, "step": str(step), "lr": f"{lr:.6g}", **{k: f"{v:.6g}" for k, v in values.items()}}
        self._append(self.path, _line([cells.get(name, "") for name in self.columns]))
        self.rows += 1
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name.replace(".", "/"), value, step)

    def timing(self, step: int, seconds: float, rate: float) -> None:
        self._append(self.timing_path, _line([str(step), f"{seconds:.1f}", f"{rate:.2f}"]))

    def flush(self) -> None:
        """To the disk: a checkpoint never speaks of rows that a power cut could still take away."""
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())
        if self._board is not None:
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def state_dict(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "rows": self.rows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back every row and column written after that state."""
        self.columns, self.rows = list(state["columns"]), int(state["rows"])
        header, rows = self._read()
        place = {name: i for i, name in enumerate(header)}
        # A killed process may have cut the last row short, and may have begun columns that come again.
        cells = [{name: row[i] for name, i in place.items() if i < len(row)} for row in rows[: self.rows]]
        kept = [[row.get(name, "") for name in self.columns] for row in cells]
        self.rows = len(kept)
        write_text(self.path, "".join(_line(row) for row in [self.columns, *kept]))
        if not self.timing_path.exists():
            write_text(self.timing_path, _line(TIMING))

    def _widen(self, fresh: list[str]) -> None:
        _, rows = self._read()
        self.columns += fresh
        write_text(self.path, "".join(_line(row) for row in [self.columns, *(r + [""] * len(fresh) for r in rows)]))

    def _read(self) -> tuple[list[str], list[list[str]]]:
        if not self.path.exists():
            return list(self.columns), []
        header, *rows = csv.reader(self.path.read_text(encoding="utf-8").splitlines())
        return header, rows

    @staticmethod
    def _append(path: Path, line: str) -> None:
        try:
            with open(path, "a", encoding="utf-8", newline="") as file:
                file.write(line)
        except OSError as error:
            raise WriteError("cannot write the log", where=str(path), hint=error.strerror or "check the disk") from error


def _line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MissingDependencyError(
            "TensorBoard is not installed", where="training.tensorboard", hint='pip install "healmap[track]"'
        ) from None
    return SummaryWriter(str(folder))
