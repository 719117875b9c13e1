"""The full description of a run, as plain typed data: what a recipe returns and ``experiment.json`` holds.

This module does not import torch, so that the command line can read and change settings without it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .errors import ConfigError

Normalisation = Literal["window", "percentile", "foreground-median", "zscore", "none"]


def _require(condition: bool, what: str, hint: str) -> None:
    if not condition:
        raise ConfigError(what, hint=hint)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """From a file to what the network sees. Every field is stored in the run and applied identically at prediction."""

    size: int = 128  # working side length in pixels; images come out size x size
    channels: int = 1  # 1: grey (colour is averaged by luma); 3: RGB (grey is repeated)
    fit: Literal["pad", "crop", "stretch"] = "pad"  # how a non-square image becomes square before resizing
    normalisation: Normalisation = "percentile"
    window: tuple[float, float] | None = None  # (lowest, highest) for "window"; None: the type's or the file's own
    percentiles: tuple[float, float] = (0.5, 99.5)  # for "percentile", per case
    median_scale: float = 2.5  # for "foreground-median": value / (scale * foreground median)
    zscore_range: float = 4.0  # for "zscore": this many training standard deviations fill [-1, 1]
    axis: int = 2  # volumes: array axis along which slices are taken
    nonfinite: Literal["refuse", "lowest"] = "refuse"  # images with NaN or infinity; "lowest": such values count as background
    batch_size: int = 16
    flip: bool = True  # horizontal flip with probability 1/2, training only
    workers: int = 1  # batches prepared ahead by threads; 0: none
    healthy_share: float = 0.5  # share of labelled healthy patients kept as the known-healthy set when a
    #                                                   mixed set must be made from a labelled table (labels then hidden)
    min_slices_to_tumour: int = 0  # drop healthy slices closer than this to a lesion, where the table says
    select: str = ""  # "column=value": only these rows of the table, for example modality=flair
    domain_column: str = "label"  # "label", "class", a column of the table, "folder", or "attributes" with the columns below
    attributes: tuple[str, ...] = ()
    domains: tuple[
        str, ...
    ] = ()  # values of domain_column, the translation's own: the first in the place of "healthy" (set B),
    #                                whatever the labels say; rows of other values are left out. Empty: found in the table
    exclusive: tuple[str, ...] = ()  # attributes of which an image has one, such as hair colours
    allow_leak: bool = False  # train although a patient or image is in two splits; the report says so

    def __post_init__(self) -> None:
        _require(self.size >= 8, f"size {self.size} is too small", "use at least 8")
        _require(self.channels in (1, 3), f"channels must be 1 or 3, not {self.channels}", "use 1 for grey images")
        _require(self.batch_size >= 1, f"batch_size must be at least 1, not {self.batch_size}", "use for example 16")
        _require(self.axis in (0, 1, 2), f"axis must be 0, 1 or 2, not {self.axis}", "2 is axial for most NIfTI files")
        _require(0 < self.healthy_share < 1, f"healthy_share must lie between 0 and 1, not {self.healthy_share}", "use 0.5")
        low, high = self.percentiles
        _require(0 <= low < high <= 100, f"percentiles {self.percentiles} are not an increasing pair in 0..100", "use 0.5,99.5")
        if self.window is not None:
            _require(self.window[0] < self.window[1], f"window {self.window} is not an increasing pair", "lowest, highest")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How the loop runs. What a method learns, and how long, stands in the method's own settings."""

    minutes: float | None = None  # stop after this many minutes of training instead of after method.steps
    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda, mps
    devices: int = 1  # more than one: data-parallel
    precision: Literal["auto", "32", "bf16", "16"] = "auto"  # auto: bf16 where the processor has it, else 32
    channels_last: bool = True
    compile: bool = False
    clip: float = 0.0  # largest gradient norm per optimiser; 0: no clipping
    ema: float = 0.0  # decay of the averaged weights; 0: none
    log_every: int = 50  # steps between log rows (the log holds means over them)
    sample_every: int = 1000  # steps between picture grids and validations
    save_every: int = 1000  # steps between checkpoints
    threads: int = 0  # processor threads; 0: torch's choice
    deterministic: bool = False  # deterministic kernels on an accelerator
    tensorboard: bool = False
    # What the best weights are best in, on validation images. auroc: of the labels. aucp: of known healthy against mixed
    # images, no diseased label used (Brainomaly's). auto: auroc with both labels, else aucp where images are unknown.
    select: Literal["auto", "auroc", "aucp"] = "auto"
    validation_limit: int = 400  # validation images looked at every sample_every steps (all at the end)

    def __post_init__(self) -> None:
        for name in ("log_every", "sample_every", "save_every", "devices"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1, not {getattr(self, name)}", "use a positive number")
        _require(0 <= self.ema < 1, f"ema must lie in [0, 1), not {self.ema}", "0.999 is usual, 0 turns it off")
        _require(self.minutes is None or self.minutes > 0, f"minutes must be positive, not {self.minutes}", "use for example 5")


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """From a map to findings."""

    min_area: int = 0  # components of at most this many native pixels are dropped
    healthy_quantile: float = 0.95  # image threshold when no diseased validation image exists
    pixel_quantile: float = 0.995  # pixel threshold when no validation mask exists


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run needs but the data: method by name with its settings, data, training and detection settings."""

    method_name: str
    method: Any  # the method's own Config dataclass
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    recipe: str = ""  # the recipe it started from

    def with_(self, **changes: Any) -> Experiment:
        return replace(self, **changes)
