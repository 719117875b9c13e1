"""What a person sees of a run: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Quiet: says nothing. Used as a context manager around the loop."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def note(self, text: str) -> None:
        """A line that stays."""

    def step(self, phase: str, step: int, total: int, rate: float, left: float) -> None:
        """After every step. rate: images per second; left: seconds, NaN where unknown."""

    def losses(self, values: Mapping[str, float]) -> None:
        """After every log interval."""

    def saved(self, step: int) -> None:
        pass


class Lines(Progress):
    """One line per log interval, at most one in ten seconds."""

    def __init__(self) -> None:
        self._last, self._where, self._saved = 0.0, "", ""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def step(self, phase: str, step: int, total: int, rate: float, left: float) -> None:
        self._where = f"{phase} {step}/{total}  {rate:.1f} images/s  {duration(left)} left"

    def losses(self, values: Mapping[str, float]) -> None:
        now = time.monotonic()
        if now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            self.note(f"{self._where}{self._saved}  {in_words(values)}")

    def saved(self, step: int) -> None:
        self._saved = f"  saved at {step}"


class Live(Progress):
    """A bar with step, speed and time left, the losses by name, and the last checkpoint."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live as RichLive
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            console=console,
        )
        self._task = self._bar.add_task("starting", total=None, speed="")
        self._losses, self._saved = "", "no checkpoint yet"
        self._live = RichLive(console=console, refresh_per_second=4, get_renderable=self._render)

    def _render(self) -> Any:
        from rich.console import Group
        from rich.text import Text

        return Group(self._bar, Text(f"{self._losses}\n{self._saved}", style="dim"))

    def __enter__(self) -> Live:
        self._live.__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        self._live.__exit__(*what)

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def step(self, phase: str, step: int, total: int, rate: float, left: float) -> None:
        self._bar.update(
            self._task, description=phase, completed=step, total=total, speed=f"{rate:.1f} images/s, {duration(left)} left"
        )

    def losses(self, values: Mapping[str, float]) -> None:
        self._losses = in_words(values)

    def saved(self, step: int) -> None:
        self._saved = f"last checkpoint at step {step}"


def make_progress(*, quiet: bool) -> Progress:
    """Live on a terminal (standard error), lines elsewhere, nothing when quiet."""
    if quiet:
        return Progress()
    from rich.console import Console

    console = Console(stderr=True)
    return Live(console) if console.is_terminal else Lines()


def in_words(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def duration(seconds: float) -> str:
    if not seconds >= 0 or seconds == float("inf"):
        return "some time"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
