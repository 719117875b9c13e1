"""ALOCC: published counts, borders, the equations of paper and program, who moves how often, and the scores."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import repeat

import pytest
import torch

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods.alocc import ALOCC
from healmap.methods.base import Optimisers
from healmap.networks.alocc import Down, Up, border
from healmap.types import Batch, Spec


def build(seed=0, **settings):
    torch.manual_seed(seed)
    config, spec = ALOCC.tiny()
    return ALOCC(replace(config, **settings), spec)


def images(n=3, seed=1):
    return torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize(("side", "discriminator"), [(28, 270_401), (45, 271_041), (256, 302_657)])
def test_fact_parameters_of_the_authors_networks(side, discriminator):
    with torch.device("meta"):
        method = ALOCC(ALOCC.Config(), Spec(1, side, side))
    assert sum(p.numel() for p in method.R.parameters()) == 373_217
    assert sum(p.numel() for p in method.D.parameters()) == discriminator


@pytest.mark.parametrize("side", [28, 45, 7])
def test_borders_and_their_transpose(side):
    torch.manual_seed(0)
    down, up = Down(2, 3).double(), Up(3, 2).double()
    with torch.no_grad():
        down.bias.zero_(), up.bias.zero_()
        up.weight.copy_(down.weight)
    x = torch.randn(1, 2, side, side, dtype=torch.float64)
    y = down(x)
    half = -(-side // 2)
    assert y.shape == (1, 3, half, half)
    before, after = border(side)
    assert after - before in (0, 1)  # TensorFlow puts the odd pixel behind
    assert before + side + after == 2 * (half - 1) + 5
    wide = torch.zeros(2, before + side + after, before + side + after, dtype=torch.float64)
    wide[:, before : before + side, before : before + side] = x[0]
    by_hand = (down.weight[1] * wide[:, 4:9, 2:7]).sum() if side > 7 else None
    if by_hand is not None:
        torch.testing.assert_close(y[0, 1, 2, 1], by_hand)
    other = torch.randn_like(y)
    back = up(other, torch.Size([side, side]))
    assert back.shape == x.shape
    torch.testing.assert_close((y * other).sum(), (x * back).sum())  # <Down x, o> = <x, Up o>


@pytest.mark.parametrize("reconstruction", ["squared", "released"])
def test_losses(reconstruction):
    method, x = build(reconstruction=reconstruction).double().eval(), images().double()
    x_noisy = images(seed=7).double()
    refined = method.R(x_noisy)
    found = method.refiner_loss(x, x_noisy, refined)
    p, q = torch.sigmoid(method.D(x)), torch.sigmoid(method.D(refined))
    if reconstruction == "squared":
        rec = (x - refined).pow(2).sum() / x.numel()
    else:
        s = torch.sigmoid(refined)
        rec = -(x_noisy * s.log() + (1 - x_noisy) * (1 - s).log()).sum() / x.numel()
    assert found["rec"].item() == pytest.approx(0.2 * rec.item())
    assert found["adv"].item() == pytest.approx(float(-q.log().mean()))
    critic = method.critic_loss(x, refined)
    assert critic["real"].item() == pytest.approx(float(-p.log().mean()))
    assert critic["fake"].item() == pytest.approx(float(-(1 - q).log().mean()))
    (of_perfect,) = torch.autograd.grad(method.reconstruction_loss(x, x, y := x.clone().requires_grad_()), y)
    assert bool(of_perfect.any()) == (reconstruction == "released"), "the program's term is not least at its target"


def test_noise():
    method, x = build(), torch.zeros(4, 1, 64, 64)
    torch.manual_seed(0)
    assert float(method.noisy(x).std()) == pytest.approx(0.31, rel=0.02)
    assert float(method.noisy(x + 1).max()) == 1
    assert torch.equal(build(noise=0.0).noisy(x), x)


@pytest.mark.parametrize("r_steps", [1, 2, 3])
def test_one_step_of_the_discriminator_then_several_of_the_refiner(r_steps):
    method = build(r_steps=r_steps)
    optimisers = Optimisers(method.phases()[0].optimisers)
    descend, order, passes = optimisers.descend, [], []
    forward = method.R.forward
    method.R.forward = lambda x: passes.append(x) or forward(x)

    def watched(which, loss):
        method.zero_grad(set_to_none=True)
        before = {k: v.clone() for k, v in method.named_parameters()}
        descend(which, loss)
        moved = {k[0] for k, v in method.named_parameters() if not torch.equal(v, before[k])}
        assert moved == {k[0] for k, v in method.named_parameters() if v.grad is not None} == {which}
        order.append(which)

    optimisers.descend = watched
    method.step(repeat(Batch(images())), 0, optimisers)
    assert order == ["D"] + ["R"] * r_steps
    assert len(passes) == r_steps  # the first serves D as well
    assert all(torch.equal(p, passes[0]) for p in passes)  # the same noise within a step
    assert not torch.equal(passes[0], images())


@pytest.mark.parametrize("judged", ["refined", "raw"])
@torch.no_grad()
def test_scores(judged):
    x = images()
    method = build(judged=judged).eval()
    logit = method.D(method.R(x) if judged == "refined" else x).flatten()
    found = method.predict(x)
    torch.testing.assert_close(found.score, -logit)
    torch.testing.assert_close(build(judged=judged, score="posterior").eval().predict(x).score, 1 - torch.sigmoid(logit))
    assert found.anomaly_map is None
    assert found.maps == {}
    torch.testing.assert_close(found.healed, method.R(x))


@torch.no_grad()
def test_a_sure_discriminator_still_tells_images_apart():
    found = []
    for settings in ({}, {"score": "posterior"}):
        method, x = build(**settings).eval(), images(8)
        method.D.forward = lambda _: torch.linspace(-60, -20, 8)[:, None]
        found.append(len(set(method.predict(x).score.tolist())))
    assert found == [8, 1]


@torch.no_grad()
def test_statistics_of_the_image_are_the_authors_test_one_image_at_a_time():
    stored, own = build(), build(statistics="image")
    for seed in range(3):
        stored.D(stored.R(images(seed=seed)))
    own.load_state_dict(stored.state_dict())
    stored.eval(), own.eval()
    x, theirs = images(), copy.deepcopy(stored).train()
    alone = torch.cat([-theirs.D(theirs.R(one))[0] for one in x.split(1)])
    torch.testing.assert_close(own.predict(x).score, alone, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(stored.predict(x).score, alone, rtol=0.01)


@pytest.mark.parametrize("size", [(28, 28), (45, 45), (17, 40)])
def test_any_size_comes_back(size):
    method = ALOCC(ALOCC.tiny()[0], Spec(3, *size)).eval()
    with torch.no_grad():
        assert method.predict(torch.zeros(2, 3, *size)).healed.shape == (2, 3, *size)


def test_what_cannot_work_is_refused():
    with pytest.raises(ConfigError) as refused:
        ALOCC(ALOCC.tiny()[0], Spec(1, 16, 32))
    assert "17" in refused.value.hint
    for setting in ({"r_steps": 0}, {"noise": -0.1}, {"lambda_rec": -1.0}, {"lr": 0.0}):
        with pytest.raises(ConfigError):
            ALOCC.Config(**setting)


def test_fact_settings_of_the_authors_code():
    found = recipes.get("alocc")
    m = found.method
    assert (m.lr, m.lambda_rec, m.r_steps, m.width, m.critic_width) == (2e-3, 0.2, 2, 32, 16)
    # Of the range: MNIST is in [0, 1] there, video in [-1, 1] as here.
    assert [recipes.get(f"alocc{n}").method.noise / 2 for n in ("", "-released", "-patches")] == [0.155, 0.155, 0.155 / 2]
    assert (found.data.size, found.data.batch_size) == (28, 128)
    assert not ALOCC.averaged
    assert recipes.get("alocc-small").training.ema == 0
    released = recipes.get("alocc-released").method
    assert (released.reconstruction, released.judged, released.statistics) == ("released", "raw", "image")
