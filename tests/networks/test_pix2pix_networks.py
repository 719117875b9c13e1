"""pix2pix's U-Net and PatchGAN: published sizes, and the published functions at their batch of one."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from healmap.errors import ConfigError
from healmap.networks.cyclegan import check_sizes
from healmap.networks.norm import InstanceNorm
from healmap.networks.pix2pix import Critic, Generator, levels_for


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_fact_parameters():
    assert count(Generator(1)) == 54_407_809
    assert count(Generator(3)) == 54_413_955
    assert count(Critic(2)) == 2_764_609
    assert count(Critic(6)) == 2_768_705


@pytest.mark.parametrize(
    ("size", "levels"), [((256, 256), 8), ((512, 512), 8), ((128, 128), 7), ((64, 64), 6), ((96, 64), 5), ((100, 64), 2)]
)
def test_levels_follow_the_size(size, levels):
    assert levels_for(*size, 8) == levels


def batch_norm(h, norm):
    """Torch's own, in training mode, as the authors' programs run it at all times."""
    return F.batch_norm(h, None, None, norm.weight, norm.bias, training=True)


def published(G, x):
    """The U-Net as nested blocks, from the outside in: the authors' order of layers."""

    def inside(h, k):
        down = G.down[k]
        h = down[0](h if k == 0 else F.leaky_relu(h, 0.2))
        if k == len(G.down) - 1:
            below = h
        else:
            h = h if k == 0 else batch_norm(h, down[1])
            below = torch.cat([h, inside(h, k + 1)], 1)
        if k == 0:
            return torch.tanh(G.last(F.relu(below)))
        up = G.up[len(G.up) - k]
        return batch_norm(up[0](F.relu(below)), up[1])

    return inside(x, 0)


@pytest.mark.parametrize("levels", [2, 4, 5])
def test_the_u_net_is_the_published_one_at_a_batch_of_one(levels):
    torch.manual_seed(0)
    G = Generator(1, width=4, levels=levels).double().eval()
    x = torch.rand(3, 1, 32, 32, dtype=torch.float64) * 2 - 1  # five levels end in one pixel
    for p in G.parameters():
        p.data.add_(0.1 * torch.randn_like(p))
    one_by_one = torch.cat([published(G, image) for image in x.split(1)])
    torch.testing.assert_close(G(x), one_by_one)
    assert bool(G(x).isfinite().all())


def test_the_innermost_three_levels_drop_out_while_training_and_only_then():
    torch.manual_seed(0)
    G, x = Generator(1, width=4, levels=6), torch.rand(1, 1, 64, 64)
    dropping = [any(isinstance(m, nn.Dropout) for m in up) for up in G.up]
    assert dropping == [True, True, True, False, False]
    assert not torch.equal(G(x), G(x))
    G.eval()
    assert torch.equal(G(x), G(x))


def test_the_critic_judges_patches_of_70_pixels():
    torch.manual_seed(0)
    D = Critic(2, width=2).double()
    assert D(*torch.zeros(2, 1, 1, 256, 256, dtype=torch.float64)).shape == (1, 1, 30, 30)
    for i, layer in enumerate(D.main):
        if isinstance(layer, InstanceNorm):
            D.main[i] = nn.Identity()  # a norm sees the whole image
    x = torch.zeros(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    D(x, torch.zeros_like(x))[0, 0, 15, 15].backward()
    seen = x.grad[0, 0].abs() > 0
    assert (int(seen.any(0).sum()), int(seen.any(1).sum())) == (70, 70)


def test_weights_start_as_published():
    torch.manual_seed(0)
    for module in (Generator(1, width=16, levels=5), Critic(2, width=16)):
        for part in module.modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d) and part.weight.numel() > 5000:
                assert part.weight.std().item() == pytest.approx(0.02, rel=0.1)
            if isinstance(part, InstanceNorm):
                assert part.weight.mean().item() == pytest.approx(1, abs=0.05)
                assert 0 < part.weight.std().item() < 0.05
                assert not part.bias.any()


@pytest.mark.parametrize(("size", "layers"), [((30, 32), 2), ((16, 16), 3), ((64, 66), 3), ((32, 32), 0)])
def test_sizes_that_do_not_fit_are_refused_with_advice(size, layers):
    with pytest.raises(ConfigError) as caught:
        check_sizes(*size, layers)
    assert any(c.isdigit() for c in caught.value.hint)


@pytest.mark.parametrize(("size", "layers"), [(24, 3), (12, 2), (8, 1)])
def test_the_smallest_sizes_work(size, layers):
    check_sizes(size, size, layers)
    x = torch.rand(1, 1, size, size)
    assert bool(Critic(2, width=2, layers=layers)(x, x).isfinite().all())
    assert Generator(1, width=2, levels=levels_for(size, size, 8))(x).shape == x.shape
