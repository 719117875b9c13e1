"""Convolutions in single precision are that while a method trains and predicts, and a user's settings come back."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from fakes import Dimmer, DimmerConfig

from healmap.detection.apply import apply
from healmap.experiment import TrainingConfig
from healmap.methods.single_precision import single_precision
from healmap.training.device import process_settings
from healmap.types import Prediction, Spec


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


@pytest.fixture(autouse=True)
def users() -> Iterator[None]:
    """A process in which both are on."""
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = flags()
    cudnn.allow_tf32 = products.allow_tf32 = True
    yield
    cudnn.allow_tf32, products.allow_tf32 = before


def test_within_and_afterwards() -> None:
    @single_precision()
    def fails() -> None:
        assert flags() == (False, False)
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        fails()
    assert flags() == (True, True)


def test_training_and_prediction_are_within() -> None:
    with process_settings(TrainingConfig()):
        assert flags() == (False, False)
    assert flags() == (True, True)
    seen = []

    class Watched(Dimmer):
        def predict(self, image: torch.Tensor) -> Prediction:
            seen.append(flags())
            return super().predict(image)

    apply(Watched(DimmerConfig(), Spec(1, 32, 32)), np.zeros((1, 1, 32, 32), np.float32), torch.device("cpu"))
    assert seen == [(False, False)]
    assert flags() == (True, True)
