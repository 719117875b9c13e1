"""What is called single precision is it on graphics processors too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_precision() -> Iterator[None]:
    """Within, float32 convolutions and matrix products keep float32's 24 bits; the settings are put back afterwards.

    By PyTorch's default Nvidia's cards round the factors of float32 convolutions to 11 bits (TF32), which would move scores
    across thresholds. Half precision by autocast is not affected. Serves as a decorator as well.
    """
    cudnn, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32
    cudnn.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32 = before
