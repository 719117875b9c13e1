"""CycleGAN's networks: published sizes and counts; the image pool against a list."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from healmap.errors import ConfigError
from healmap.networks.cyclegan import Critic, Generator, _reflect_by_parts, check_sizes, reflect
from healmap.networks.norm import InstanceNorm
from healmap.networks.pool import ImagePool


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("channels", "nine", "six", "critic"), [(3, 11_378_179, 7_837_699, 2_764_737), (1, 11_365_633, 7_825_153, 2_762_689)]
)
def test_fact_parameters(channels, nine, six, critic):
    with torch.device("meta"):
        found = (count(Generator(channels)), count(Generator(channels, blocks=6)), count(Critic(channels)))
    assert found == (nine, six, critic)


@pytest.mark.parametrize(("side", "patches"), [(256, 30), (128, 14), (64, 6), (24, 1), (28, 1)])
def test_fact_patches(side, patches):
    with torch.no_grad():
        assert Critic(1, width=2)(torch.zeros(1, 1, side, side)).shape == (1, 1, patches, patches)


def test_fact_a_patch_sees_70_pixels():
    critic = Critic(1, width=2)
    for name, layer in list(critic.model.named_children()):
        if isinstance(layer, InstanceNorm):  # its statistics see the whole image
            setattr(critic.model, name, nn.Identity())
    x = torch.randn(1, 1, 128, 128, requires_grad=True)
    critic(x)[0, 0, 7, 7].backward()
    seen = x.grad[0, 0].abs().sum(0).nonzero()
    assert seen.max() - seen.min() + 1 == 70


def test_the_start_is_as_published():
    for net in (Generator(1, width=16, blocks=2), Critic(1, width=16)):
        for name, p in net.named_parameters():
            if name.endswith("bias"):
                assert not p.any()
            elif p.numel() > 2000:
                assert p.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (1, 3, 32, 20)])
def test_the_generator_keeps_the_size_and_the_range(shape):
    x = torch.randn(shape)
    with torch.no_grad():
        y = Generator(shape[1], width=2, blocks=2)(x)
    assert y.shape == x.shape
    assert y.abs().max() <= 1


def test_reflection_by_parts_is_torchs():
    x = torch.randn(2, 3, 8, 6, dtype=torch.float64, requires_grad=True)
    for pad in (1, 3):
        found, expected = _reflect_by_parts(x, pad), F.pad(x, (pad,) * 4, mode="reflect")
        assert torch.equal(found, expected)
        assert torch.equal(reflect(x, pad), expected)
        g = torch.randn_like(expected)
        ours, theirs = (torch.autograd.grad(y, x, g)[0] for y in (found, expected))
        torch.testing.assert_close(ours, theirs)


def test_weights_saved_with_running_statistics_load():
    """As the authors' program saved them until October 2018."""
    net = Critic(1, width=4)
    stored = net.state_dict() | {f"model.3.{n}": torch.ones(8) for n in ("running_mean", "running_var")}
    net.load_state_dict(stored | {"model.3.num_batches_tracked": torch.tensor(3)}, strict=True)


@pytest.mark.parametrize(
    ("size", "layers", "hint"), [((30, 32), 3, "multiple of 4"), ((32, 16), 3, "at least 24 pixels, or critic_layers=2")]
)
def test_sizes_that_do_not_fit_are_refused_with_advice(size, layers, hint):
    with pytest.raises(ConfigError, match=hint):
        check_sizes(*size, layers)
    check_sizes(24, 28, layers)
    with pytest.raises(ConfigError, match="critic_layers"):
        check_sizes(64, 64, 0)


# The pool


def images(start, n):
    return torch.arange(start, start + n).float().view(n, 1, 1, 1).expand(n, 1, 2, 2)


def test_the_pool_does_as_a_list_would():
    pool, size, n = ImagePool(4, (1, 2, 2)), 4, 3
    torch.manual_seed(5)
    found = [pool(images(n * k, n))[:, 0, 0, 0].tolist() for k in range(40)]
    torch.manual_seed(5)
    kept: list[float] = []
    for k in range(40):
        shown = []
        for new, (coin, place) in zip(images(n * k, n)[:, 0, 0, 0].tolist(), torch.rand(n, 2).tolist(), strict=True):
            if len(kept) < size:
                kept.append(new)
                shown.append(new)
            elif coin < 0.5:
                slot = int(place * size)
                shown.append(kept[slot])
                kept[slot] = new
            else:
                shown.append(new)
        assert found[k] == shown, k
    assert pool.images[:, 0, 0, 0].tolist() == kept
    assert int(pool.count) == size


def test_a_full_pool_shows_old_images_half_the_time():
    pool = ImagePool(5, (1, 2, 2))
    torch.manual_seed(0)
    shown = torch.cat([pool(images(10 * k, 10))[:, 0, 0, 0] for k in range(100)])
    assert torch.equal(shown[:5], torch.arange(5.0))
    fresh = (shown[5:] == torch.arange(1000.0)[5:]).float().mean().item()
    assert fresh == pytest.approx(0.5, abs=0.05)


def test_the_pool_gives_no_gradient_and_keeps_dtypes():
    x = torch.randn(2, 1, 2, 2, requires_grad=True)
    for size in (0, 1):
        pool = ImagePool(size, (1, 2, 2))
        assert not pool(x * 1).requires_grad
        assert pool(x.double()).dtype == torch.float64
        assert pool.images.dtype == torch.float32


def test_a_stored_pool_goes_on_as_before():
    first, second = ImagePool(3, (1, 2, 2)), ImagePool(3, (1, 2, 2))
    for k in range(3):
        first(images(2 * k, 2))
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    for pool in (first, second):
        torch.manual_seed(1)
        pool.found = [pool(images(100 + k, 1)) for k in range(9)]
    assert all(map(torch.equal, first.found, second.found))


def test_without_a_pool_every_image_is_fresh():
    pool = ImagePool(0, (1, 2, 2))
    assert torch.equal(pool(images(7, 3)), images(7, 3))
