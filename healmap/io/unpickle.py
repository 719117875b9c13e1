"""What torch.save wrote: states of runs, and weights that others trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import CheckpointError


def plain(path: Path) -> Any:
    """The one place of healmap that unpickles, and only plain data: numbers, strings, lists, dicts and tensors (on the CPU).

    Raises:
        CheckpointError: the file is damaged, of another kind, or holds anything else, such as code.
    """
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # hostile files raise many kinds
        raise CheckpointError(f"checkpoint cannot be read: {type(error).__name__}", where=path.name) from None
