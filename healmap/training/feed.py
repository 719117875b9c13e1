"""Batches on their way from the loader to a step: counted, and brought to the device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..types import Batch

if TYPE_CHECKING:
    from ..data.loader import Loader


class Feed(Iterator[Batch]):
    """What a phase's steps draw from. ``consumed`` batches, not those prepared ahead, say where a resumed run goes on."""

    def __init__(self, loader: Loader, *, one_pass: bool, consumed: int, device: torch.device, channels_last: bool) -> None:
        self.consumed, self.images = consumed, 0
        self._source = loader.one_pass(start=consumed) if one_pass else loader.forever(start=consumed)
        self._device, self._channels_last = device, channels_last

    def __next__(self) -> Batch:
        batch = next(self._source)
        self.consumed += 1
        self.images += len(batch.image)
        parts = {f.name: getattr(batch, f.name) for f in fields(batch)}
        return replace(batch, **{name: self._to_device(part) for name, part in parts.items() if part is not None})

    def _to_device(self, tensor: Tensor) -> Tensor:
        if self._device.type == "cuda":
            tensor = tensor.pin_memory()  # from pinned memory a copy does not wait
        tensor = tensor.to(self._device, non_blocking=True)
        return tensor.contiguous(memory_format=torch.channels_last) if self._channels_last and tensor.ndim == 4 else tensor

    def close(self) -> None:
        close = getattr(self._source, "close", None)  # a generator stops its loading threads
        if close is not None:
            close()
