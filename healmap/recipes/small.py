"""What small recipes share: 64 px and an average of the weights, for a first look in minutes on two processor cores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..experiment import DataConfig, Experiment

# Ours, for generator and critic of the StarGAN family and their like: a quarter of the published width, and a critic stronger
# than its generator, for the map needs its eye.
NARROW: dict[str, Any] = {"width": 16, "blocks": 4, "critic_width": 32}


def for_minutes(base: Experiment, recipe: str, data: DataConfig | None = None, **method: Any) -> Experiment:
    """``base`` at 64 px with these settings of its method. data: where more than the size differs from the base's."""
    training = replace(base.training, ema=0.99, sample_every=500, save_every=500)  # ours: hides the swing of single steps
    data = replace(base.data if data is None else data, size=64)
    return replace(base, method=replace(base.method, **method), data=data, training=training, recipe=recipe)
