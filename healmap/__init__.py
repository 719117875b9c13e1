"""healmap: finds and localises disease in medical images by virtual healing, from image-level labels alone.

The public names below are loaded when first used, so that ``import healmap`` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import compare, evaluate, import_weights, make_phantoms, predict, train, translate
    from .detection.predictor import Predictor
    from .errors import HealError
    from .experiment import DataConfig, DetectionConfig, Experiment, TrainingConfig
    from .types import Batch, Domains, Needs, Prediction, Spec

__version__ = "0.1.0"

_HOMES = {
    "train": "api", "predict": "api", "evaluate": "api", "compare": "api", "import_weights": "api", "make_phantoms": "api",
    "translate": "api",
    "Predictor": "detection.predictor",
    "HealError": "errors",
    "Experiment": "experiment", "DataConfig": "experiment", "TrainingConfig": "experiment", "DetectionConfig": "experiment",
    "Batch": "types", "Domains": "types", "Needs": "types", "Prediction": "types", "Spec": "types",
}  # fmt: skip

__all__ = [
    "Batch",
    "DataConfig",
    "DetectionConfig",
    "Domains",
    "Experiment",
    "HealError",
    "Needs",
    "Prediction",
    "Predictor",
    "Spec",
    "TrainingConfig",
    "__version__",
    "compare",
    "evaluate",
    "import_weights",
    "make_phantoms",
    "predict",
    "train",
    "translate",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'healmap' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
