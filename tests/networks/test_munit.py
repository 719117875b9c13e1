"""Networks of the comparators: MUNIT's kind (UNIT, ACL-GAN, Council GAN) and CoGAN's coupled ones."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from healmap.errors import ConfigError
from healmap.networks import dcgan
from healmap.networks.dcgan import CoupledDiscriminators, CoupledGenerators, grow
from healmap.networks.munit import (
    ContentEncoder,
    Conv,
    CoupledAutoencoders,
    Decoder,
    FineDecoder,
    MultiScaleDiscriminator,
    StyledGenerator,
    StyleEncoder,
    adain,
    check_sizes,
    divide,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def count(*modules: nn.Module) -> int:
    return sum(p.numel() for m in modules for p in m.parameters())


# Facts: parameters of the released programs for colour images


def test_fact_unit_parameters():
    with torch.device("meta"):
        both, D = CoupledAutoencoders(3), MultiScaleDiscriminator(3)
    assert (count(both.encoders[0]), count(both.decoders[0])) == (5_385_856, 5_754_627)
    assert count(both.encoders[1], both.decoders[1]) == 11_140_483
    assert count(D) == 8_271_171
    assert count(both) + 2 * count(D) == 38_823_308


def test_fact_acl_gan_parameters():
    with torch.device("meta"):
        G, E = StyledGenerator(ContentEncoder(3), Decoder(4), 8), StyleEncoder(3, 8)
        D, pairs = MultiScaleDiscriminator(3), MultiScaleDiscriminator(6)
    assert (count(G, E), count(D), count(pairs)) == (15_029_324, 8_271_171, 8_280_387)
    assert 2 * count(G, E) + 2 * count(D) + count(pairs) == 54_881_377


def test_fact_council_gan_parameters():
    with torch.device("meta"):
        G, E = StyledGenerator(ContentEncoder(3, blocks=5), FineDecoder(3 * (3 + 1)), 64), StyleEncoder(3, 64)
        D, C = MultiScaleDiscriminator(3, scales=2), MultiScaleDiscriminator(6, scales=2, council=True)
    assert count(E) == 2_779_328
    assert (count(G, E), count(D), count(C)) == (17_404_236, 5_514_114, 6_040_194)
    assert 4 * (count(G, E) + count(D) + count(C)) == 115_834_176


def test_fact_cogan_parameters_for_digits():
    with torch.device("meta"):
        assert count(CoupledGenerators(1, (28, 28))) == 7_842_694
        assert count(CoupledDiscriminators(1, (28, 28))) == 427_593


# MUNIT's kind


@pytest.mark.parametrize("relu", [False, True])
def test_adain_is_its_equation(relu):
    x, style = torch.randn(3, 4, 5, 6, dtype=torch.float64), torch.randn(3, 8, dtype=torch.float64)
    found = adain(x, style, relu=relu)
    for i in range(3):
        for c in range(4):
            plane = x[i, c]
            expected = style[i, 4 + c] * (plane - plane.mean()) / (plane.var(correction=0) + 1e-5).sqrt() + style[i, c]
            torch.testing.assert_close(found[i, c], expected.clamp(min=0) if relu else expected)
    torch.testing.assert_close(adain(x, None), F.instance_norm(x))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (5, 1), (7, 1), (4, 2)])
@pytest.mark.parametrize("padding", ["reflect", "zeros"])
def test_convolution_pads_as_it_says(kernel, stride, padding):
    conv, x = Conv(2, 3, kernel, stride=stride, padding=padding), torch.randn(1, 2, 12, 16)
    border = (kernel - 1) // 2
    padded = F.pad(x, (border,) * 4, mode="reflect" if padding == "reflect" else "constant")
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, conv.bias, stride))
    assert conv(x).shape[2:] == (12 // stride, 16 // stride)


@pytest.mark.parametrize("decoder", [Decoder, FineDecoder])
def test_generator_keeps_the_size_and_each_image_its_style(decoder):
    g = StyledGenerator(ContentEncoder(1, width=8, blocks=1), decoder(3, width=8, blocks=1), 5, hidden=8).double()
    x, style = torch.randn(2, 1, 16, 20).double(), torch.randn(2, 5).double()
    y = g(x, style)
    assert y.shape == (2, 3, 16, 20)
    torch.testing.assert_close(g(x[1:], style[1:]), y[1:])
    torch.testing.assert_close(g(x.flip(0), style)[0], g(x[1:], style[:1])[0])
    assert not torch.allclose(g(x, style.flip(0)), y)


@pytest.mark.parametrize(("decoder", "layers"), [(Decoder, 4), (FineDecoder, 8)])
def test_every_styled_layer_hears_its_own_share(decoder, layers):
    d, h = decoder(1, width=8, blocks=2), torch.randn(1, 32, 4, 4)
    assert len(d.styled) == layers
    style = torch.randn(1, 2 * sum(d.styled))
    y, start = d(h, style), 0
    for channels in d.styled:
        other = style.clone()
        other[:, start : start + 2 * channels] += 1
        assert not torch.allclose(d(h, other), y), start
        start += 2 * channels
    assert [p.shape[1] for p in divide(style, d.styled)] == [2 * c for c in d.styled]
    assert list(divide(None, d.styled)) == [None] * layers


def test_style_is_one_vector_whatever_the_size():
    e = StyleEncoder(1, 6, width=4)
    assert e(torch.randn(2, 1, 16, 16)).shape == e(torch.randn(2, 1, 32, 48)).shape == (2, 6)


def test_discriminator_looks_at_the_image_and_its_halves():
    D, x = MultiScaleDiscriminator(1, width=4, layers=3, scales=3), torch.randn(2, 1, 32, 64)
    maps = D(x)
    assert [tuple(m.shape) for m in maps] == [(2, 1, 4, 8), (2, 1, 2, 4), (2, 1, 1, 2)]
    torch.testing.assert_close(maps[0], D.scales[0](x))
    # Mean of 3 x 3 pixels around every second one, of fewer at the border.
    kernel = torch.ones(1, 1, 3, 3)
    half = F.conv2d(x, kernel, stride=2, padding=1) / F.conv2d(torch.ones_like(x), kernel, stride=2, padding=1)
    torch.testing.assert_close(maps[1], D.scales[1](half))


def test_council_discriminator_halves_once_less():
    D = MultiScaleDiscriminator(2, width=4, layers=3, scales=1, padding="zeros", council=True)
    assert D(torch.randn(1, 2, 32, 32))[0].shape == (1, 1, 8, 8)


@pytest.mark.parametrize("shared", [0, 1])
def test_domains_share_what_they_are_told_to(shared):
    both = CoupledAutoencoders(1, width=4, blocks=2, shared=shared)
    assert count(both) == count(CoupledAutoencoders(1, width=4, blocks=2)) - 2 * shared * count(both.encoders[0].blocks[0])
    x = torch.randn(1, 1, 16, 16)
    for domain in (0, 1):
        both.zero_grad()
        both.decode(both.encode(x, domain), domain).sum().backward()
        moved = {n for n, p in both.named_parameters() if p.grad is not None}
        kinds = {n.split(".")[0] + n.split(".")[1] * n.startswith(("enc", "dec")) for n in moved}
        own = {f"encoders{domain}", f"decoders{domain}"}
        assert kinds == own | ({"shared_end", "shared_start"} if shared else set())


@pytest.mark.parametrize(
    ("size", "layers", "scales", "words"),
    [
        ((30, 32), 3, 1, "height 30.*multiple of 4"),
        ((8, 8), 3, 1, "from 16 on"),
        ((64, 32), 4, 3, "width 32.*at least 64 pixels.*at most 6"),
    ],
)
def test_sizes_that_do_not_fit_are_named_with_a_way_out(size, layers, scales, words):
    with pytest.raises(ConfigError, match=words):
        check_sizes(*size, layers=layers, scales=scales)


@pytest.mark.parametrize(("side", "layers", "scales"), [(16, 4, 1), (32, 3, 3), (64, 4, 3), (20, 3, 2)])
def test_sizes_that_fit_run(side, layers, scales):
    check_sizes(side, side, layers=layers, scales=scales)
    maps = MultiScaleDiscriminator(1, width=2, layers=layers, scales=scales)(torch.randn(1, 1, side, side))
    assert len(maps) == scales
    assert StyleEncoder(1, 2, width=2)(torch.randn(1, 1, side, side)).isfinite().all()


# CoGAN's


def test_fact_maps_grow_from_4_to_25_for_digits():
    assert grow((28, 28), 3) == [(4, 4), (7, 7), (13, 13), (25, 25)]


@pytest.mark.parametrize("size", [(28, 28), (32, 33), (64, 48)])
@pytest.mark.parametrize("layers", [2, 3])
def test_coupled_generators_reach_any_size(size, layers):
    G = CoupledGenerators(1, size, latent=5, width=4, layers=layers).eval()
    z = torch.randn(3, 5)
    assert G(z, 0).shape == G(z, 1).shape == (3, 1, *size)
    torch.testing.assert_close(G(z, 0)[1:2], G(z[1:2], 0), rtol=1e-4, atol=1e-5)  # stored statistics: no neighbours


def test_coupled_networks_share_all_but_their_outer_layers():
    G, D = CoupledGenerators(1, (28, 28), latent=5, width=4), CoupledDiscriminators(1, (28, 28), widths=(3, 4, 5))
    for domain in (0, 1):
        G.zero_grad()
        D.zero_grad()
        D(G(torch.randn(2, 5), domain), domain).sum().backward()
        for network, outer in ((G, "last"), (D, "first")):
            still = {n for n, p in network.named_parameters() if p.grad is None}
            other = f"{outer}.{1 - domain}." if network is G else f"first.{1 - domain}."
            assert still == {f"{other}weight", f"{other}bias"}


@pytest.mark.parametrize(("side", "layers", "halvings"), [(15, 3, 2), (35, 3, 3), (12, 4, 1)])
def test_small_images_are_refused_by_the_size_that_fits(side, layers, halvings):
    with pytest.raises(ConfigError, match="at least") as refused:
        dcgan.check_sizes(side, side, layers=layers, halvings=halvings)
    least = int(str(refused.value).partition("at least ")[2].split()[0])
    assert least > side
    CoupledGenerators(1, (least, least), latent=2, width=2, layers=layers)(torch.randn(2, 2), 0)
    CoupledDiscriminators(1, (least, least), widths=(2,) * (halvings + 1))(torch.randn(2, 1, least, least), 0)
    dcgan.check_sizes(least, least, layers=layers, halvings=halvings)
