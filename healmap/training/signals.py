"""Ctrl-C and SIGTERM as a wish, looked at between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopWish:
    """Context manager: the first SIGINT or SIGTERM only sets :attr:`wanted`; a second one acts as usual."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.wanted = ""
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> StopWish:
        # Python delivers signals to the main thread only; training in another thread leaves them to the caller.
        if threading.current_thread() is threading.main_thread():
            self._before = {s: signal.signal(s, self._heard) for s in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.wanted = signal.Signals(number).name
        self._put_back()

    def _put_back(self) -> None:
        for s, handler in self._before.items():
            signal.signal(s, handler)  # type: ignore[arg-type]
        self._before = {}
