"""pix2pix: the conditional critic, the halves and the L1, dropout as the only noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import pytest
import torch

from healmap.errors import ConfigError
from healmap.methods.base import Optimisers
from healmap.methods.pix2pix import Pix2Pix
from healmap.types import Batch, Needs, Spec


def build(seed=0, channels=1, **settings):
    torch.manual_seed(seed)
    config, spec = Pix2Pix.tiny()
    return Pix2Pix(replace(config, **settings), replace(spec, channels=channels))


def pair(method, n=2):
    g, s = torch.Generator().manual_seed(1), method.spec
    x, y = (torch.rand(n, s.channels, s.height, s.width, generator=g) * 2 - 1 for _ in range(2))
    return Batch(x, healthy=y)


def test_it_learns_from_pairs():
    assert Pix2Pix.needs is Needs.PAIRED


@pytest.mark.parametrize("channels", [1, 3])
def test_losses_are_the_papers(channels):
    """D: half of -log D(x, y) - log(1 - D(x, G(x))); G: -log D(x, G(x)) + 100 |y - G(x)|."""
    method = build(channels=channels).double().eval()
    b = pair(method)
    x, y = b.image.double(), b.healthy.double()
    fake = method.heal(x)
    real, made = (torch.sigmoid(method.D.main(torch.cat([x, z], 1))) for z in (y, fake))
    torch.testing.assert_close(
        method.critic_loss(x, y, fake.detach()).total, (-real.log().mean() - (1 - made).log().mean()) / 2
    )
    torch.testing.assert_close(method.generator_loss(x, y, fake).total, -made.log().mean() + 100 * (y - fake).abs().mean())


def test_the_critic_looks_at_the_input_too():
    method = build()
    b = pair(method)
    assert not torch.equal(method.D(b.image, b.healthy), method.D(b.healthy, b.healthy))


def test_each_step_moves_both_networks_on_one_translation():
    method, seen = build(), []
    forward = method.G.forward
    method.G.forward = lambda x: seen.append(len(x)) or forward(x)
    phase = method.phases()[0]
    before = {m: [p.clone() for p in getattr(method, m).parameters()] for m in "GD"}
    losses = phase.step(repeat(pair(method)), 0, Optimisers(phase.optimisers))
    assert seen == [2]
    assert {k: set(v) for k, v in losses.items()} == {"D": {"real", "fake"}, "G": {"adv", "l1"}}
    for m in "GD":
        assert any(not torch.equal(p, q) for p, q in zip(before[m], getattr(method, m).parameters(), strict=True))


def test_each_update_leaves_no_gradients_in_the_other_network():
    method = build()
    phase = method.phases()[0]
    optimisers, seen = Optimisers(phase.optimisers), {}
    descend = optimisers.descend

    def watched(which, loss):
        method.zero_grad(set_to_none=True)
        descend(which, loss)
        seen[which] = {m: any(p.grad is not None for p in getattr(method, m).parameters()) for m in "GD"}

    optimisers.descend = watched
    phase.step(repeat(pair(method)), 0, optimisers)
    assert seen == {"D": {"G": False, "D": True}, "G": {"G": True, "D": False}}


def test_an_answer_is_the_same_every_time_and_training_is_not():
    method = build()
    x = pair(method).image
    with torch.no_grad():
        assert not torch.equal(method.heal(x), method.heal(x))
        method.eval()
        assert torch.equal(method.heal(x), method.heal(x))
        without = build(dropout=0.0)
        assert torch.equal(without.heal(x), method.heal(x))


def test_pairs_are_learnt():
    """A lesion at the same place in every image: a few dozen steps fit the pairs better than no change does."""
    method = build(lr=1e-2)
    y = pair(method, 4).healthy * 0.3
    x = y.clone()
    x[..., 8:16, 8:16] += 0.6
    phase = method.phases()[0]
    optimisers = Optimisers(phase.optimisers)
    for k in range(40):
        phase.step(repeat(Batch(x, healthy=y)), k, optimisers)
    with torch.no_grad():
        assert (method.eval().heal(x) - y)[..., 8:16, 8:16].abs().mean() < 0.3


def test_levels_adapt_and_may_be_fewer():
    def levels(size, **settings):
        return len(Pix2Pix(replace(Pix2Pix.tiny()[0], **settings), Spec(height=size, width=size)).G.down)

    assert [levels(s) for s in (32, 64, 96, 256)] == [5, 6, 5, 8]
    assert levels(64, levels=3) == 3


@pytest.mark.parametrize("setting", [{"lr": 0.0}, {"dropout": 1.0}, {"lambda_l1": -1.0}, {"decay_share": 2.0}, {"levels": 0}])
def test_settings_that_cannot_work_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        Pix2Pix.Config(**setting)


def test_half_precision_trains_and_answers_in_float32():
    method = build()
    phase = method.phases()[0]
    with torch.autocast("cpu", torch.bfloat16):
        losses = phase.step(repeat(pair(method)), 0, Optimisers(phase.optimisers))
        with torch.no_grad():
            found = method.eval().predict(pair(method).image)
    assert all(t.dtype == torch.float32 for group in losses.values() for t in group.values())
    assert found.healed.dtype == found.score.dtype == torch.float32
