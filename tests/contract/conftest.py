from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where toy data are made."""
    return tmp_path_factory.mktemp("contract") / "phantoms"
