"""Generator and discriminator of DeScarGAN, against torch's own layers put together as published."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from healmap.errors import ConfigError
from healmap.networks.descargan import BatchNorm, Block, Discriminator, Generator, MaxPool, ReLU, Up, check_sizes

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def count(module):
    return sum(p.numel() for p in module.parameters())


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def shaken(module):
    """No parameter or buffer at its special first value."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.3 * torch.randn_like(p))
        for name, b in module.named_buffers():
            if b.is_floating_point():
                b.add_(torch.rand_like(b) if name.endswith("var") else torch.randn_like(b))
    return module


def test_fact_parameters():
    """Section 4: 8,528,262 and 18,170,180."""
    with torch.device("meta"):
        assert count(Generator(1)) == 8_528_262
        assert count(Discriminator(1, (256, 256))) == 18_170_180


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("relu", "channels"), [(True, 6), (False, 1)])
def test_a_block_in_training_is_torchs_layers_with_their_bias(layout, relu, channels):
    block = shaken(Block(3, channels, relu=relu)).double()
    conv, norm = nn.Conv2d(3, channels, 3, padding=1).double(), nn.BatchNorm2d(channels, momentum=0.01).double()
    conv.load_state_dict(block[0].state_dict())
    norm.load_state_dict(block[1].state_dict())
    block.to(memory_format=layout)
    for _ in range(2):
        x = torch.randn(3, 3, 8, 10, dtype=torch.float64).to(memory_format=layout).requires_grad_()
        weight = torch.randn(3, channels, 8, 10, dtype=torch.float64)
        theirs = norm(conv(x))
        theirs, ours = F.relu(theirs) if relu else theirs, block(x)
        close(ours, theirs)
        wanted = [block[0].weight, block[1].weight, block[1].bias, x], [conv.weight, norm.weight, norm.bias, x]
        for a, b in zip(
            *(torch.autograd.grad((y * weight).sum(), w) for y, w in zip((ours, theirs), wanted, strict=True)), strict=True
        ):
            close(a, b)
    for name, value in norm.state_dict().items():
        close(block[1].state_dict()[name], value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inference_takes_each_image_by_itself_or_the_running_statistics(layout):
    block, x = shaken(Block(2, 4)).double(), torch.randn(3, 2, 8, 8, dtype=torch.float64).to(memory_format=layout)
    alone = torch.cat([block.train()(one) for one in x.split(1)])
    before = {k: v.clone() for k, v in block.state_dict().items()}
    close(block.eval()(x), alone)
    assert all(torch.equal(v, before[k]) for k, v in block.state_dict().items())
    running = Block(2, 4, running=True).double()
    running.load_state_dict(before)
    norm = nn.BatchNorm2d(4).double()
    norm.load_state_dict({k.removeprefix("1."): v for k, v in before.items() if k.startswith("1.")})
    close(running.eval()(x), F.relu(norm.eval()(block[0](x))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_over_large_channels_last_maps_are_exact(dtype):
    torch.manual_seed(0)
    x = (torch.randn(2, 4, 256, 256) + 0.7).to(dtype).contiguous(memory_format=torch.channels_last)
    norm = BatchNorm(4, relu=False).train()
    norm.momentum = 1.0
    norm(x, torch.zeros(4))
    expected = torch.var_mean(x.double(), (0, 2, 3))
    close(norm.running_mean.double(), expected[1], 1e-6)
    close(norm.running_var.double(), expected[0], 2e-6)


@pytest.mark.parametrize("size", [(4, 4), (1, 3)])
def test_up_is_nearest_neighbour_and_convolution(size):
    up = shaken(Up(3, 5)).double().eval()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    conv, norm = up[0][1], up[1]
    doubled = F.interpolate(x, scale_factor=2, mode="nearest")
    close(up(x), norm(F.conv2d(doubled, conv.weight, padding=1), conv.bias))
    assert up(x).shape == (2, 5, 2 * size[0], 2 * size[1])


@pytest.mark.parametrize("size", [(8, 8), (24, 40)])
def test_generator_keeps_the_size_and_has_a_branch_per_class(size):
    torch.manual_seed(0)
    g, x = Generator(3, width=2), torch.rand(2, 3, *size)
    for c, other in ((0, "conv7_k"), (1, "conv7_g")):
        y = g(x, c)
        assert y.shape == x.shape
        assert float(y.detach().abs().max()) <= 1
        g.zero_grad()
        y.square().sum().backward()
        untouched = {n.split(".")[0] for n, p in g.named_parameters() if p.grad is None and n.endswith("weight")}
        assert untouched == {other}
    assert not torch.allclose(g(x, 0), g(x, 1))


def test_full_resolution_has_no_skip_connection():
    """Without what comes from below, the image does not reach the output."""
    g, x = Generator(1, width=2).eval(), torch.rand(2, 1, 16, 16)
    g.down1 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(2, 4, 1))
    nn.init.zeros_(g.down1[1].weight)
    close(*g(x, 0).split(1))


def plain(d, x, c):
    """The discriminator as published: ReLU before pooling, autograd's own layers."""
    h = x
    for k, layer in enumerate(d.encoder):
        h = F.max_pool2d(h, 2) if k in (1, 3, 6, 9, 12) else F.relu(layer[0](h))
    head, source = (d.conv_g, d.conv_k)[c], h
    for layer in head[:2]:
        source = F.relu(layer[0](source))
    logits = h
    for layer in d.conv2[:2]:
        logits = F.relu(layer[0](logits))
    last = head[2][0]
    return F.conv2d(source, last.weight, last.bias, padding=1), d.linearclass(d.conv2[2](logits))


@pytest.mark.parametrize("c", [0, 1])
def test_discriminator_its_gradients_and_theirs(c):
    torch.manual_seed(0)
    d = Discriminator(1, (64, 64), width=2).double().eval()
    for p in d.parameters():
        nn.init.normal_(p, std=0.3)
    x = torch.randn(2, 1, 64, 64, dtype=torch.float64, requires_grad=True)
    for ours, theirs in zip(d(x, c), plain(d, x, c), strict=True):
        close(ours, theirs)
    found = []
    for source in (d.critic(d.features(x), c), plain(d, x, c)[0]):
        (gradient,) = torch.autograd.grad(source.sum(), x, create_graph=True)
        norm = gradient.flatten(1).norm(dim=1)
        found.append(torch.autograd.grad((norm - 1).square().sum(), list(d.encoder.parameters()), allow_unused=True))
    weights = [k for k, p in enumerate(d.encoder.parameters()) if p.ndim == 4]
    assert all(float(found[0][k].abs().max()) > 0 for k in weights)
    for k in weights:
        close(found[0][k], found[1][k])


@pytest.mark.parametrize("layer", [ReLU(), MaxPool()])
def test_second_derivatives(layer):
    torch.manual_seed(0)
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t: layer(t).square(), (x,))


@pytest.mark.parametrize(
    ("size", "map_size", "places"),
    [((32, 32), (3, 3), 1), ((64, 64), (4, 4), 1), ((136, 72), (6, 4), 2), ((256, 256), (10, 10), 16)],
)
def test_classifier_fits_the_size(size, map_size, places):
    d = Discriminator(1, size, width=1)
    source, logits = d(torch.rand(2, 1, *size), 0)
    assert source.shape == (2, 1, *map_size)
    assert logits.shape == (2, 2)
    assert d.linearclass[1].in_features == 16 * places


def test_the_border_of_the_critics_map_is_its_bias():
    d = shaken(Discriminator(1, (64, 64), width=2))
    source, _ = d(torch.rand(1, 1, 64, 64), 1)
    bias = d.conv_k[2][0].bias
    border = torch.ones(4, 4, dtype=torch.bool)
    border[1:3, 1:3] = False
    close(source[0, 0][border], bias.expand(12))
    assert not torch.allclose(source[0, 0][~border], bias)


def test_sizes():
    for good in ((32, 32), (64, 256), (136, 72)):
        check_sizes(*good)
    for bad, hint in (((100, 64), "96"), ((64, 24), "32"), ((250, 250), "248")):
        with pytest.raises(ConfigError, match=hint):
            check_sizes(*bad)
