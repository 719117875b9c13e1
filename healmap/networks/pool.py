"""The image pool of Shrivastava et al., CVPR 2017, as CycleGAN uses it: critics also see translations made a while ago."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ImagePool(nn.Module):
    """``size`` images of late, as buffers of fixed shape: a checkpoint holds them, so that a resumed run goes on exactly.

    Until the pool is full every image is stored and returned. Afterwards, image by image, with probability 1/2 a random stored
    image is returned and the new one takes its place; otherwise the new one is returned. Chance comes from torch's
    generator of the images' device; nothing waits for an accelerator.

    Args:
        size: images kept (published: 50); 0: none, every image is returned as it is.
        shape: (C, H, W) of an image.
    """

    images: Tensor  # (size, C, H, W); the first ``count`` are filled
    count: Tensor  # () int64

    def __init__(self, size: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W), fresh translations -> as many for the critic, without gradient."""
        if not self.size:
            return images.detach()
        chance = torch.rand(len(images), 2, device=images.device)
        slots = (chance[:, 1] * self.size).long().clamp(max=self.size - 1)
        shown = []
        for new, coin, slot in zip(images.detach().to(self.images.dtype).split(1), chance[:, 0], slots, strict=True):
            full = self.count >= self.size
            place = torch.where(full, slot, self.count.clamp(max=self.size - 1)).view(1)
            kept = self.images.index_select(0, place)
            swap = full & (coin < 0.5)
            shown.append(torch.where(swap, kept, new))
            self.images.index_copy_(0, place, torch.where(swap | ~full, new, kept))
            self.count += ~full
        return torch.cat(shown).to(images.dtype)
