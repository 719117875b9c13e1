"""Runs that take a second: every method's own tiny settings, on phantoms made on the spot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from healmap import methods
from healmap.data.dataset import Dataset, open_dataset
from healmap.data.phantoms import make_phantoms
from healmap.experiment import DataConfig, Experiment, TrainingConfig
from healmap.training import checkpoint


@dataclass(frozen=True)
class Toy:
    experiment: Experiment
    train: Dataset
    val: Dataset


def phantoms(folder: Path) -> Path:
    """A phantom data set in ``folder``, made at the first call."""
    if not (folder / "labels.csv").exists():
        make_phantoms(folder, patients=24, size=32, seed=0)
    return folder


def toy(
    name: str,
    folder: Path,
    *,
    steps: int = 24,
    method: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    **training: Any,
) -> Toy:
    """The method's tiny settings with small batches, data included. Further settings by keyword."""
    config, spec = methods.get(name).tiny()
    config = replace(config, **{"steps": steps, **(method or {})})
    data_config = DataConfig(**{"size": spec.height, "channels": spec.channels, "batch_size": 4, **(data or {})})
    settings = {
        "log_every": 5,
        "sample_every": 10_000,
        "save_every": 3,
        "ema": 0.9,
        "threads": 1,
        "precision": "32",
        "validation_limit": 8,
        **training,
    }
    train = open_dataset(phantoms(folder), "train", data_config)
    val = open_dataset(phantoms(folder), "val", data_config, preprocessing=train.preprocessing)
    return Toy(Experiment(method_name=name, method=config, data=data_config, training=TrainingConfig(**settings)), train, val)


def tensors(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All leaves of nested plain data by path."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from tensors(item, f"{name}.{key}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from tensors(item, f"{name}.{i}")
    else:
        yield name.lstrip("."), value


CLOCKS = ("position.elapsed", "position.phase_elapsed")


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of what a finished run must reproduce bit by bit: each part of the state, the weights files and the log."""
    state = checkpoint.load(run)["loop"]
    found = {part: hashlib.sha256() for part in state}
    for name, value in tensors(state):
        if name not in CLOCKS:
            raw = value.detach().contiguous().numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode()
            found[name.partition(".")[0]].update(name.encode() + raw)
    files = {n: run / n for n in ("log.csv", "weights/last.safetensors", "weights/best.safetensors")}
    return {
        **{k: v.hexdigest() for k, v in found.items()},
        **{n: hashlib.sha256(p.read_bytes()).hexdigest() for n, p in files.items()},
    }
