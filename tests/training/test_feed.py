"""Batches on their way to a step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import torch

from healmap.training.feed import Feed
from healmap.types import Batch


class Source:
    """A loader whose batches have every part."""

    def forever(self, *, start: int = 0) -> Iterator[Batch]:
        while True:
            picture, label = torch.rand(3, 2, 4, 4), torch.zeros(3, dtype=torch.int64)
            mask = torch.zeros(3, 4, 4, dtype=torch.int64)
            yield Batch(picture, label, picture.clone(), mask, mask.clone())


def fed(device: str, *, channels_last: bool = False) -> Feed:
    source = Source()
    return Feed(source, one_pass=False, consumed=5, device=torch.device(device), channels_last=channels_last)  # type: ignore[arg-type]


def test_every_part_comes_to_the_device_and_is_counted() -> None:
    feed = fed("meta")
    batch = next(feed)
    assert {f.name: getattr(batch, f.name).device.type for f in fields(Batch)} == {f.name: "meta" for f in fields(Batch)}
    assert (feed.consumed, feed.images) == (6, 3)
    feed.close()


def test_pictures_alone_are_laid_out_channels_last() -> None:
    batch = next(fed("cpu", channels_last=True))
    assert batch.healthy is not None
    assert batch.mask is not None
    for picture in (batch.image, batch.healthy):
        assert picture.is_contiguous(memory_format=torch.channels_last)
    assert batch.mask.is_contiguous()
