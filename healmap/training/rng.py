"""Every source of chance of a process, as tensors: torch (processor and accelerators), numpy, Python."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """The present state of all generators: a dict of tensors of fixed shapes, and a list of one tensor per accelerator."""
    _, words, position, has_gauss, gauss = np.random.get_state(legacy=True)  # type: ignore[misc]
    _, python_words, python_gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "accelerator": torch.cuda.get_rng_state_all() if torch.cuda.is_available()
        else [torch.mps.get_rng_state()] if torch.backends.mps.is_available() else [],
        "numpy": torch.tensor([*np.asarray(words).tolist(), position, has_gauss], dtype=torch.int64),
        "numpy_gauss": torch.tensor(gauss, dtype=torch.float64),
        "python": torch.tensor(python_words, dtype=torch.int64),
        "python_gauss": torch.tensor(float("nan") if python_gauss is None else python_gauss, dtype=torch.float64),
    }  # fmt: skip


def restore(state: Mapping[str, Any]) -> None:
    """Sets all generators to what :func:`capture` returned."""
    torch.set_rng_state(state["torch"])
    accelerator = list(state["accelerator"])
    if accelerator and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(accelerator[: torch.cuda.device_count()])
    elif accelerator and torch.backends.mps.is_available():
        torch.mps.set_rng_state(accelerator[0])
    *words, position, has_gauss = state["numpy"].tolist()
    np.random.set_state(("MT19937", np.array(words, dtype=np.uint32), position, has_gauss, float(state["numpy_gauss"])))
    gauss = float(state["python_gauss"])
    random.setstate((3, tuple(state["python"].tolist()), None if gauss != gauss else gauss))


@contextmanager
def undisturbed() -> Iterator[None]:
    """What happens inside draws no number that the training would have drawn."""
    before = capture()
    try:
        yield
    finally:
        restore(before)


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
