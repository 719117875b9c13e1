from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from healmap.training.loop import Loop


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where toy data are made."""
    return tmp_path_factory.mktemp("toys") / "phantoms"


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets the next runs be asked to stop after that step; 0: no more."""

    def at(step: int) -> None:
        monkeypatch.setattr(Loop, "_stop_wanted", lambda self, stop: "a test" if self.position.done == step else "")

    return at
