"""GANomaly: published counts, the authors' reductions, who moves, what the score is, and what each switch changes."""

from __future__ import annotations

import copy
from dataclasses import replace
from itertools import repeat

import pytest
import torch

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods import weights
from healmap.methods.base import Optimisers
from healmap.methods.ganomaly import LOOK_EVERY, GANomaly
from healmap.types import Batch, Spec


def build(seed=0, **settings):
    torch.manual_seed(seed)
    config, spec = GANomaly.tiny()
    return GANomaly(replace(config, **settings), spec)


def images(n=4, seed=1):
    return torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def step(method, k=0):
    return method.step(repeat(Batch(images())), k, Optimisers(method.phases()[0].optimisers))


def parameters(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("side", "channels", "generator", "discriminator"),
    [
        (32, 1, 3_200_384, 661_248),
        (32, 3, 3_206_528, 663_296),
        (64, 1, 10_723_712, 2_763_520),
        (128, 1, 38_353_280, 11_162_368),
        (256, 1, 143_944_064, 44_737_280),
        (256, 3, 143_950_208, 44_739_328),
    ],
)
def test_fact_parameters_of_the_authors_networks(side, channels, generator, discriminator):
    with torch.device("meta"):
        method = GANomaly(GANomaly.Config(), Spec(channels, side, side))
        capped = GANomaly(GANomaly.Config(widest=512), Spec(channels, side, side))
    assert (parameters(method.G), parameters(method.D)) == (generator, discriminator)
    assert (parameters(capped.G) < generator) == (side > 64)


def test_weights_begin_as_the_authors_do():
    method = build(width=64)
    for name, p in method.state_dict().items():
        if "running" in name or not p.is_floating_point():
            continue
        if p.ndim == 4:
            assert float(p.std()) == pytest.approx(0.02, rel=0.1), name
            assert float(p.mean()) == pytest.approx(0, abs=2e-3), name
        elif name.endswith("weight"):
            assert float(p.mean()) == pytest.approx(1, abs=0.01), name
            assert 0.01 < float(p.std()) < 0.03, name
        else:
            assert float(p.abs().max()) == 0, name


def test_losses_are_means_with_the_authors_weights():
    method, x = build(width=8).double(), images(3).double()
    z, x_hat, z_hat = method.G(x)
    logit, f_x = method.D(x)
    found = method.generator_loss(x, x_hat, z, z_hat, f_x)
    fake_logit, f_x_hat = method.D(x_hat)
    total = method.critic_loss(logit, fake_logit).total.item()
    f_x, f_x_hat, x_hat, z, z_hat, logit, fake_logit = (t.detach() for t in (f_x, f_x_hat, x_hat, z, z_hat, logit, fake_logit))
    assert f_x.shape == (3, 32, 4, 4)
    adv = sum(float((f_x[i] - f_x_hat[i]).pow(2).sum()) for i in range(3)) / (3 * 32 * 16)
    con = sum(float((x[i] - x_hat[i]).abs().sum()) for i in range(3)) / (3 * 32 * 32)
    enc = sum(float((z[i] - z_hat[i]).pow(2).sum()) for i in range(3)) / (3 * 8)
    assert found["adv"].item() == pytest.approx(adv)
    assert found["con"].item() == pytest.approx(50 * con)
    assert found["enc"].item() == pytest.approx(enc)
    p, q = torch.sigmoid(logit), torch.sigmoid(fake_logit)
    assert total == pytest.approx(float(-(p.log().mean() + (1 - q).log().mean()) / 2))


def test_the_generator_moves_first_then_the_discriminator_each_by_its_own_loss():
    method = build()
    optimisers = Optimisers(method.phases()[0].optimisers)
    descend, order, passes = optimisers.descend, [], []
    forward = method.D.forward
    method.D.forward = lambda x: passes.append(x.requires_grad) or forward(x)

    def watched(which, loss):
        method.zero_grad(set_to_none=True)
        before = {k: v.clone() for k, v in method.named_parameters()}
        descend(which, loss)
        moved = {k[0] for k, v in method.named_parameters() if not torch.equal(v, before[k])}
        assert moved == {k[0] for k, v in method.named_parameters() if v.grad is not None} == {which}
        order.append(which)

    optimisers.descend = watched
    losses = method.step(repeat(Batch(images())), 0, optimisers)
    assert order == ["G", "D"]
    assert passes == [False, True, False]  # x once for both losses, x̂ with and without gradient
    assert set(losses) == {"G", "D", "monitor"}


def test_every_part_of_the_generator_is_moved_by_its_terms():
    method, x = build(), images()
    z, x_hat, z_hat = method.G(x)
    losses = method.generator_loss(x, x_hat, z, z_hat, method.D(x)[1].detach())
    reached = {}
    for term, loss in losses.items():
        found = torch.autograd.grad(loss, list(method.G.parameters()), retain_graph=True, allow_unused=True)
        names = [n for n, _ in method.G.named_parameters()]
        reached[term] = {n.partition(".")[0] for n, g in zip(names, found, strict=True) if g is not None and g.any()}
    assert reached == {"adv": {"E1", "De"}, "con": {"E1", "De"}, "enc": {"E1", "De", "E2"}}


@torch.no_grad()
def test_scores_of_code_and_paper():
    x = images()
    for kind in ("squared", "absolute"):
        method = build(score=kind).eval()
        z, x_hat, z_hat = method.G(x)
        found = method.predict(x)
        apart = (z - z_hat).numpy()
        for i in range(4):
            by_hand = (apart[i] ** 2).sum() / 8 if kind == "squared" else abs(apart[i]).sum()
            assert found.score[i].item() == pytest.approx(float(by_hand), rel=1e-5)
        assert found.anomaly_map is None
        torch.testing.assert_close(found.healed, x_hat)
        torch.testing.assert_close(method.heal(x), x_hat)
        torch.testing.assert_close(found.maps["residual"][:, 0], (x - x_hat).abs()[:, 0] / 2)


@torch.no_grad()
def test_statistics_of_the_image_are_the_authors_test_one_image_at_a_time():
    stored, own = build(width=16), build(width=16, statistics="image")
    for method in (stored, own):
        for seed in range(3):
            method.G(images(seed=seed))  # something to store
    own.load_state_dict(stored.state_dict())
    stored.eval(), own.eval()
    x, theirs = images(), copy.deepcopy(stored).train()
    alone = torch.cat([(z - z_hat).square().mean(1) for z, _, z_hat in (theirs.G(one) for one in x.split(1))])
    torch.testing.assert_close(own.predict(x).score, alone, rtol=1e-3, atol=1e-6)
    assert not torch.allclose(stored.predict(x).score, alone, rtol=0.01)
    assert all(torch.equal(a, b) for a, b in zip(own.state_dict().values(), stored.state_dict().values(), strict=True))


@pytest.mark.parametrize("limit", [100.0, 1e-5, 0.0])
def test_a_discriminator_without_loss_is_drawn_anew_at_the_next_look(limit):
    method = build(restart_below=limit)
    for k in (0, LOOK_EVERY - 2):
        losses = step(method, k)
    before = {k: v.clone() for k, v in method.D.named_parameters()}
    losses = step(method, LOOK_EVERY - 1)
    apart = max(float((v.detach() - before[k]).abs().max()) for k, v in method.D.named_parameters())
    assert (apart > 0.01) == (limit == 100)  # a step of Adam moves by 2e-4
    if limit:
        assert losses["monitor"]["restarts"].item() == (limit == 100)
        assert method.watch.low.item() == 0
    again = build(seed=1, restart_below=limit)
    for k in range(LOOK_EVERY - 2, LOOK_EVERY):
        step(again, k)
    if limit == 100:  # every process draws the same, whatever its own chance
        assert all(torch.equal(p, q) for p, q in zip(method.D.parameters(), again.D.parameters(), strict=True))


def test_the_watch_is_in_checkpoints_and_not_in_weights():
    method = build()
    assert "watch.low" in method.state_dict()
    assert not any(name.startswith("watch") for name in weights.kept(method))


@pytest.mark.parametrize(("height", "width", "advice"), [(48, 48, "64"), (96, 64, "128"), (4, 4, "8"), (30, 30, "32")])
def test_sizes_that_made_the_authors_program_hang_are_refused(height, width, advice):
    with pytest.raises(ConfigError) as refused:
        GANomaly(GANomaly.tiny()[0], Spec(1, height, width))
    assert f"for example {advice}" in refused.value.hint


@pytest.mark.parametrize("side", [8, 16, 64])
def test_powers_of_two_work(side):
    method = GANomaly(GANomaly.tiny()[0], Spec(1, side, side)).eval()
    with torch.no_grad():
        assert method.predict(torch.zeros(2, 1, side, side)).healed.shape == (2, 1, side, side)


@pytest.mark.parametrize("setting", [{"latent": 0}, {"lr": 0.0}, {"widest": -1}, {"lambda_con": -1.0}, {"restart_below": -1.0},
                                     {"betas": (0.5, 1.5)}])  # fmt: skip
def test_settings_that_cannot_work_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        GANomaly.Config(**setting)


def test_fact_settings_of_the_authors_code():
    found = recipes.get("ganomaly")
    m = found.method
    assert (m.lambda_adv, m.lambda_con, m.lambda_enc) == (1, 50, 1)
    assert (m.lr, m.betas, m.latent, m.width, m.restart_below) == (2e-4, (0.5, 0.999), 100, 64, 1e-5)
    assert (found.data.batch_size, found.data.size, m.steps) == (64, 32, 10_500)
    assert recipes.get("ganomaly-baggage").data.size == 64
