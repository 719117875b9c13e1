"""VA-GAN's U-Net and critic: published sizes, and the layers against an independent reading of their table."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from healmap.errors import ConfigError
from healmap.networks.vagan import Critic, Generator, check_sizes


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_fact_parameters_in_two_dimensions():
    assert count(Generator(1)) == 462_305
    assert count(Critic(1)) == 1_757_249


def test_the_u_net_is_the_table_of_its_levels():
    """Convolution, norm and ReLU everywhere but at the end; every up-convolution to 16 channels; concatenated skips."""
    torch.manual_seed(0)
    G, x = Generator(1).double(), torch.randn(2, 1, 16, 24, dtype=torch.float64)
    for p in G.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    convs = [m for m in G.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [16, 16, 32, 32, 64, 64, 128, 128, 64, 64, 32, 32, 16, 1]
    assert [m.out_channels for m in G.modules() if isinstance(m, nn.ConvTranspose2d)] == [16, 16, 16]

    def normed(h, m, bn):
        stride = {"stride": 2} if isinstance(m, nn.ConvTranspose2d) else {}
        conv = F.conv_transpose2d if stride else F.conv2d
        h = conv(h, m.weight, None, padding=1, **stride)
        mean, var = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), unbiased=False, keepdim=True)
        h = (h - mean) / (var + 1e-3).sqrt() * bn.weight.view(-1, 1, 1) + bn.bias.view(-1, 1, 1)
        return h.clamp(min=0)

    def several(h, block):
        parts = [m for m in block.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)]
        for m, bn in zip(parts[::2], parts[1::2], strict=True):
            h = normed(h, m, bn)
        return h

    h1 = several(x, G.down[0])
    h2 = several(F.max_pool2d(h1, 2), G.down[1])
    h3 = several(F.max_pool2d(h2, 2), G.down[2])
    h = several(F.max_pool2d(h3, 2), G.down[3])
    for skip, lift, block in zip((h3, h2, h1), G.lift, G.up, strict=True):
        h = several(torch.cat([several(h, lift), skip], 1), block)
    torch.testing.assert_close(G(x), F.conv2d(h, G.last.weight, G.last.bias, padding=1))


def test_the_critic_gives_one_number_per_image_the_mean_over_places():
    torch.manual_seed(0)
    D, x = Critic(3, width=2), torch.randn(3, 3, 32, 48)
    assert D(x).shape == (3, 1)
    assert D.main(x).shape == (3, 1, 2, 3)
    torch.testing.assert_close(D(x)[1, 0], D.main(x)[1].mean())


@pytest.mark.parametrize("size", [(30, 32), (8, 8), (32, 20)])
def test_sizes_that_do_not_fit_are_refused_with_one_that_does(size):
    with pytest.raises(ConfigError, match="multiple of 8") as caught:
        check_sizes(*size)
    near = int(caught.value.hint.rsplit(" ", 1)[1])
    check_sizes(near, near)
    assert Generator(1, width=2)(torch.zeros(1, 1, near, near)).shape == (1, 1, near, near)
    assert Critic(1, width=2)(torch.zeros(1, 1, near, near)).shape == (1, 1)
