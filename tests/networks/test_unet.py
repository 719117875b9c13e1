"""The U-Net: sizes, zero start, images apart."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from healmap.errors import ConfigError
from healmap.networks.unet import UNet, check_size


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("norm", ["instance", "group", "none"])
def test_it_starts_at_zero_and_keeps_the_size(stem, norm):
    net = UNet(3, 2, width=8, levels=2, stem=stem, norm=norm)
    out = net(torch.randn(2, 3, 32, 48))
    assert out.shape == (2, 2, 32, 48)
    assert not out.any()


@pytest.mark.parametrize("norm", ["instance", "group"])
def test_an_image_is_treated_alike_alone_and_in_a_batch(norm):
    torch.manual_seed(0)
    net = UNet(1, 1, width=8, levels=2, norm=norm)
    torch.nn.init.normal_(net.last.weight, std=0.02)
    x = torch.randn(4, 1, 16, 16)
    assert_close(net(x)[2:3], net(x[2:3]), atol=1e-5, rtol=0)


def test_it_doubles_its_width_up_to_eight_times():
    net = UNet(1, 1, width=4, levels=5)
    assert [block.second.out_channels for block in net.down] == [4, 8, 16, 32, 32, 32]


@pytest.mark.parametrize("size", [(96, 96), (32, 64)])
def test_sizes_that_suit_pass(size):
    check_size(*size, 16, 4)


@pytest.mark.parametrize(("size", "sizes"), [((100, 100), "96 or 112"), ((96, 90), "80 or 96"), ((16, 16), "32")])
def test_sizes_that_do_not_suit_are_refused_with_those_that_do(size, sizes):
    with pytest.raises(ConfigError, match=sizes):
        check_size(*size, 16, 4)
