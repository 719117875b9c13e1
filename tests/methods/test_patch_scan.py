"""The patch-scan GAN: its critic answers for each patch by itself, and the map shows these answers at the patches' centres."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import nn

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods import patches, weights
from healmap.methods.base import Optimisers
from healmap.methods.patch_scan import PatchScanGAN
from healmap.networks.patch_scan import Critic, Generator
from healmap.types import Batch, Needs, Spec


def build(seed=0, height=32, width=32, **settings):
    torch.manual_seed(seed)
    method = PatchScanGAN(replace(PatchScanGAN.tiny()[0], **settings), Spec(height=height, width=width))
    with torch.no_grad():
        for p in method.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return method.double().eval()


def images(n=2, height=32, width=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, 1, height, width, generator=generator, dtype=torch.float64) * 2 - 1


class Brightness(Critic):
    """Hand-made: the logit is eight times the patch's mean."""

    def forward(self, x):
        return 8 * F.avg_pool2d(x, self.side, self.step)


def posterior(method, x):
    """1 - sigmoid of the hand-made critic for the patch with each corner, from the definition."""
    side = method.config.patch
    means = [
        [x[:, 0, r : r + side, c : c + side].mean((1, 2)) for c in range(x.shape[3] - side + 1)]
        for r in range(x.shape[2] - side + 1)
    ]
    return 1 - 1 / (1 + torch.exp(-8 * torch.stack([torch.stack(row, 1) for row in means], 1)))


# The critic


@pytest.mark.parametrize("side", [8, 16, 32, 64])
def test_the_critic_sees_a_patch_and_nothing_beside_it(side):
    torch.manual_seed(0)
    D = Critic(1, side, width=2).double()
    assert D(images(2, side, side)).shape == (2, 1, 1, 1)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in D.modules())
    assert all(m.padding == (0, 0) for m in D.modules() if isinstance(m, nn.Conv2d))
    x = images(1, side, side).requires_grad_()
    assert bool((torch.autograd.grad(D(x).sum(), x)[0] != 0).all())  # each of its pixels counts


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", [(32, 32), (37, 50), (16, 21)])
def test_a_scan_is_the_answer_to_every_patch_by_itself(size, stride):
    method, x = build(stride=stride, height=size[0], width=size[1]), images(2, *size)
    found = method.D.scan(x, stride)
    for i, top in enumerate(range(0, size[0] - 15, stride)):
        for j, left in enumerate(range(0, size[1] - 15, stride)):
            alone = method.D(x[..., top : top + 16, left : left + 16])
            torch.testing.assert_close(found[..., i : i + 1, j : j + 1], alone)
    assert found.shape[2:] == (i + 1, j + 1)


def test_generator():
    for side in (8, 32):
        z = torch.randn(3, 10)
        made = Generator(2, side, latent=10, width=4)(z)
        assert made.shape == (3, 2, side, side)
        assert bool((made.abs() <= 1).all())


# The map


def test_map_of_a_hand_made_critic_at_every_pixel():
    method, x = build(stride=1, foreground="all"), images()
    method.D = Brightness(1, 16)
    value, found = posterior(method, x), method.predict(x).anomaly_map
    # The centre of a patch of 16 lies between its pixels 7 and 8: a pixel has two patches along each axis, half a pixel off.
    for r, c in ((8, 8), (12, 20), (23, 15)):
        torch.testing.assert_close(found[:, 0, r, c], value[:, r - 8 : r - 6, c - 8 : c - 6].mean((1, 2)))
    # Towards the border the last patch answers.
    torch.testing.assert_close(found[:, 0, 0, 0], value[:, 0, 0])
    torch.testing.assert_close(found[:, 0, 3, 31], value[:, 0, 16])


def test_coarser_scans_interpolate():
    fine, coarse, x = build(stride=1, foreground="all"), build(stride=4, foreground="all"), images(2, 32, 32)
    x = F.avg_pool2d(x, 9, 1, 4)
    for method in (fine, coarse):
        method.D = Brightness(1, 16)
    a, b = fine.predict(x).anomaly_map, coarse.predict(x).anomaly_map
    torch.testing.assert_close(a, b, atol=0.02, rtol=0)
    value = posterior(coarse, x)
    torch.testing.assert_close(b[:, 0, 0, 0], value[:, 0, 0])
    # Pixel 9 lies 1.5 after the first centre at 7.5, and 2.5 before the second at 11.5.
    torch.testing.assert_close(b[:, 0, 9, 0], value[:, 0, 0] * 2.5 / 4 + value[:, 4, 0] * 1.5 / 4)


def test_values_at_centres():
    """A slope stays a slope between the first and the last centre."""
    side, stride = 6, 4
    corner = torch.arange(0, 30 - side + 1, stride, dtype=torch.float64)
    values = (corner + (side - 1) / 2)[:, None].expand(-1, 3)[None, None]
    found = patches.at_centres(values, (30, 14), (side, side), stride)
    place = torch.arange(30, dtype=torch.float64).clamp(2.5, float(corner[-1]) + 2.5)
    torch.testing.assert_close(found[0, 0], place[:, None].expand(-1, 14))


def test_what_looks_made_is_marked_and_empty_places_are_not():
    method = build(height=64, width=64, patch=16, stride=2)
    method.D = Brightness(1, 16)
    x = torch.full((1, 1, 64, 64), -1.0, dtype=torch.float64)
    x[..., 4:60, 4:30] = 0.8
    x[..., 30:46, 10:26] = -0.5  # dark, which this critic takes for made
    found = method.predict(x)
    assert found.anomaly_map[0, 0, 38, 18].item() > 0.5 > found.anomaly_map[0, 0, 14, 18].item()
    assert not found.anomaly_map[..., 48:].any()
    assert build(height=64, width=64, foreground="all").predict(x).anomaly_map[..., 48:].all()


def test_score_is_the_maximum_of_the_smoothed_map():
    x = images()
    for sigma in (0.0, 2.0):
        found = build(smooth=sigma).predict(x)
        smooth = [gaussian_filter(m.detach().numpy(), sigma, mode="reflect") for m in found.anomaly_map[:, 0]]
        assert found.score.tolist() == pytest.approx([float(m.max()) for m in smooth])
    found = build(score="mean", smooth=0.0).predict(x)
    torch.testing.assert_close(found.score, found.anomaly_map.mean((1, 2, 3)))


def test_an_image_is_judged_alone():
    method, x = build(), images(5)
    together, alone = method.predict(x), method.predict(x[3:4])
    torch.testing.assert_close(together.anomaly_map[3:4], alone.anomaly_map)
    torch.testing.assert_close(together.score[3:4], alone.score)


# Training


def test_losses():
    method, x, fake = build(), images(3, 16, 16), images(3, 16, 16, seed=2)
    real, made = (1 / (1 + torch.exp(-method.D(v))) for v in (x, fake))
    losses = method.critic_loss(x, fake)
    assert losses["real"].item() == pytest.approx(-sum(p.log().item() for p in real) / 3)
    assert losses["fake"].item() == pytest.approx(-sum((1 - p).log().item() for p in made) / 3)
    assert method.generator_loss(fake).total.item() == pytest.approx(-sum(p.log().item() for p in made) / 3)


def test_a_step_learns_from_patches_and_each_network_by_its_own_loss():
    method = build(patches=3).train()
    phase = method.phases()[0]
    optimisers, seen, moved = Optimisers(phase.optimisers), [], []
    kept, descend = method.D.forward, optimisers.descend

    def watched(name, loss):
        before = {k: p.clone() for k, p in method.named_parameters()}
        descend(name, loss)
        moved.append((name, {k[0] for k, p in method.named_parameters() if not torch.equal(p, before[k])}))

    method.D.forward = lambda x: seen.append(tuple(x.shape)) or kept(x)
    optimisers.descend = watched
    losses = phase.step(repeat(Batch(images(4))), 0, optimisers)
    assert seen == [(24, 1, 16, 16), (12, 1, 16, 16)]
    assert moved == [("D", {"D"}), ("G", {"G"})]
    assert set(losses) == {"D", "G"}


def test_the_generator_is_not_released(tmp_path):
    method = build().float()
    loaded, _ = weights.load(weights.save(method, tmp_path / "w.safetensors", {}))
    assert not any(name.startswith("G.") for name in weights.kept(method))
    x = images().float()
    assert torch.equal(loaded.predict(x).score, method.predict(x).score)


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"patch": 24}, "16"),
        ({"patch": 4}, "8"),
        ({"patch": 64}, "64"),
        ({"stride": 3}, "4"),
        ({"smooth": -1.0}, "0"),
        ({"betas": (0.5, 1.5)}, "published"),
    ],
)
def test_settings_are_refused_with_advice(settings, advice):
    with pytest.raises(ConfigError, match=f": .*{advice}"):
        build(**settings)


def test_recipes():
    """Every pixel is a patch's centre (paper); the small one's patches are as much of an image."""
    large, small = recipes.get("patch-scan-gan"), recipes.get("patch-scan-gan-small")
    assert (large.method.stride, large.method.patch, large.data.batch_size * large.method.patches) == (1, 32, 64)
    assert small.data.size == 64
    assert PatchScanGAN.needs is Needs.HEALTHY
    assert not PatchScanGAN.heals
    method = PatchScanGAN(small.method, Spec(height=64, width=64)).eval()
    with torch.no_grad():
        assert method.predict(images(1, 64, 64).float()).anomaly_map.shape == (1, 1, 64, 64)
