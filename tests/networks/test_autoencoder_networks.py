"""Baur's unified autoencoders and Kascenas's U-Net: published sizes, layers, and what the code may depend on."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from healmap.errors import ConfigError
from healmap.networks.autoencoder import ChannelScale, DenoisingUNet, StandardisedConv, UnifiedAutoencoder, UnifiedVAE, groups
from healmap.networks.autoencoder import halvings as count_halvings


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("size", "vae", "ae"), [(64, 1_322_769, 1_191_569), (128, 1_758_449, 1_627_249), (256, 2_194_129, 2_062_929)]
)
def test_fact_parameters_of_the_unified_networks(size, vae, ae):
    """Baur et al.: as the published program counts them, its inert norms' scales included."""
    with torch.device("meta"):
        found = [parameters(cls(1, (size, size), norm="scale")) for cls in (UnifiedVAE, UnifiedAutoencoder)]
        plain = UnifiedVAE(1, (size, size))
    assert found == [vae, ae]
    stages = size.bit_length() - 4
    widths = [32, 64, 128, 128, 128][:stages]
    scales = 2 * (sum(widths) + 128 + sum([128, 64, 32, 32, 32][:stages]))
    assert parameters(plain) == vae - scales
    assert not any(isinstance(m, ChannelScale) for m in plain.modules())


def test_fact_layers_of_the_unified_network():
    """Baur et al., 128 px: convolutions 5 x 5 with stride 2, code of 128 from 8 x 8 x 16, no activation at the end."""
    with torch.device("meta"):
        net = UnifiedVAE(1, (128, 128))
    convs = [m for m in net.encoder if isinstance(m, nn.Conv2d)]
    assert [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in convs] == [
        *((w, 5, 2) for w in (32, 64, 128, 128)),
        (16, 1, 1),
    ]
    ups = [m for m in net.decoder if isinstance(m, nn.ConvTranspose2d)]
    assert [(m.out_channels, m.kernel_size[0], m.stride[0]) for m in ups] == [(w, 5, 2) for w in (128, 64, 32, 32)]
    assert [tuple(m.weight.shape) for m in (net.mu, net.log_sigma, net.places)] == [(128, 1024), (128, 1024), (1024, 128)]
    assert {m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)} == {0.3}
    assert isinstance(net.decoder[-1], nn.Conv2d)
    assert net.encoder(torch.zeros(1, 1, 128, 128, device="meta")).shape == (1, 16, 8, 8)


def test_the_code_is_mu_without_noise_and_moves_by_sigma_with_it():
    torch.manual_seed(0)
    net = UnifiedVAE(1, (32, 32), width=4, code=3).eval()
    x, e = torch.rand(2, 1, 32, 32), torch.randn(2, 3)
    image, mu, log_sigma = net(x)
    assert torch.equal(image, net.decode(mu))
    assert_close(net(x, e).image, net.decode(mu + log_sigma.exp() * e))
    assert torch.equal(UnifiedAutoencoder.forward(net, x), image)


def test_dropout_in_training_only():
    torch.manual_seed(0)
    net, x = UnifiedAutoencoder(1, (32, 32), width=4, code=8, dropout=0.5), torch.rand(1, 1, 32, 32)
    assert not torch.equal(net(x), net(x))
    assert torch.equal(net.eval()(x), net(x))


def test_a_channel_scale_begins_as_nothing():
    x = torch.randn(2, 3, 4, 4)
    scale = ChannelScale(3)
    assert torch.equal(scale(x), x)
    with torch.no_grad():
        scale.weight[1], scale.bias[2] = 3, 1
    assert_close(scale(x), torch.stack([x[:, 0], 3 * x[:, 1], x[:, 2] + 1], dim=1))


@pytest.mark.parametrize(("size", "count"), [((16, 16), 1), ((64, 64), 3), ((96, 96), 3), ((96, 64), 3), ((256, 256), 5)])
def test_sizes_that_suit(size, count):
    assert count_halvings(*size) == count
    with torch.device("meta"):
        net = UnifiedAutoencoder(1, size, width=4, code=4)
        assert net(torch.zeros(1, 1, *size, device="meta")).shape == (1, 1, *size)


@pytest.mark.parametrize(("size", "advice"), [((8, 8), "16"), ((33, 33), "32 or 36"), ((127, 127), "120 or 128")])
def test_sizes_that_do_not_suit_are_refused_with_advice_that_works(size, advice):
    with pytest.raises(ConfigError, match=advice):
        count_halvings(*size)
    for word in advice.split(" or "):
        assert count_halvings(int(word), int(word)) >= 1


def test_fact_the_denoising_network():
    """Kascenas et al., authors' program: 64 to 512 channels in three halvings, 8, 16, 16 and 32 groups."""
    with torch.device("meta"):
        net = DenoisingUNet(1)
    assert [block[0].out_channels for block in net.down] == [64, 128, 256, 512]
    assert [block[2].num_groups for block in net.down] == [8, 16, 16, 32]
    assert [block[3].in_channels for block in net.up] == [256, 128, 64]
    widths = [(1, 64), (64, 128), (128, 256), (256, 512)]
    blocks = [*widths, (512, 256), (256, 128), (128, 64)]
    expected = sum(9 * i * o + o + 2 * o + 9 * o * o + o + 2 * o for i, o in blocks)
    expected += sum(4 * 2 * o * o + o for o in (256, 128, 64)) + 64 + 1
    assert parameters(net) == expected == 7_701_825


def test_groups_are_the_middle_divisor():
    assert [groups(c) for c in (1, 2, 6, 12, 64, 128)] == [1, 2, 3, 4, 8, 16]


def test_standardised_weights_have_mean_zero_and_deviation_one():
    torch.manual_seed(0)
    conv, x = StandardisedConv(2, 3), torch.randn(1, 2, 6, 8)
    weight = conv.weight.detach().flatten(1)
    weight = ((weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)).view_as(conv.weight)
    expected = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, conv.bias)
    assert_close(conv(x), expected, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        conv.weight.mul_(7).add_(2)  # neither scale nor offset of the weights matters
    assert_close(conv(x), expected, rtol=1e-3, atol=1e-4)


def test_an_image_is_denoised_alike_alone_and_in_a_batch():
    torch.manual_seed(0)
    net, x = DenoisingUNet(2, width=8, levels=2), torch.rand(3, 2, 16, 24)
    out = net(x)
    assert out.shape == x.shape
    assert_close(net(x[1:2]), out[1:2], atol=1e-5, rtol=0)
