"""VA-GAN: the signs, the penalties, the schedule and the additive map."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from healmap.errors import ConfigError
from healmap.losses.adversarial import gradient_penalty
from healmap.methods.base import Optimisers
from healmap.methods.vagan import VAGAN, column_penalty
from healmap.types import Batch, Needs, Spec


def build(seed=0, **settings):
    torch.manual_seed(seed)
    config, spec = VAGAN.tiny()
    return VAGAN(replace(config, **settings), spec)


def batches(method, n=3):
    s, seed = method.spec, 0
    while True:
        g = torch.Generator().manual_seed(seed)
        x, r = (torch.rand(n, s.channels, s.height, s.width, generator=g) * 2 - 1 for _ in range(2))
        yield Batch(x, healthy=r)
        seed += 1


def test_it_knows_the_class_while_learning_and_at_inference():
    assert VAGAN.needs is Needs.DISEASED_AND_HEALTHY
    assert VAGAN.class_at_inference


def test_fact_the_critic_moves_five_times_and_a_hundred_early_and_at_each_hundredth_step():
    method = VAGAN(VAGAN.Config(width=2, critic_width=2), Spec(height=32, width=32))
    found = [method.critic_steps(k) for k in range(300)]
    assert found == [100 if k < 25 or k in (99, 199, 299) else 5 for k in range(300)]


def test_a_step_is_one_of_the_generator_each_update_on_a_batch_of_its_own():
    method = build(n_critic=2, n_critic_much=4, much_first=1, much_every=5)
    phase = method.phases()[0]
    optimisers, moves, drawn = Optimisers(phase.optimisers), [], []
    descend = optimisers.descend
    optimisers.descend = lambda name, loss: moves.append(name) or descend(name, loss)

    def counted():
        for batch in batches(method):
            drawn.append(batch)
            yield batch

    stream = counted()
    for k in range(5):
        phase.step(stream, k, optimisers)
    assert moves == ["D"] * 4 + ["G"] + (["D"] * 2 + ["G"]) * 3 + ["D"] * 4 + ["G"]
    assert len(drawn) == len(moves)


def test_each_update_moves_its_own_network():
    method = build(n_critic=1, much_first=0)
    phase = method.phases()[0]
    optimisers, seen = Optimisers(phase.optimisers), []
    descend = optimisers.descend

    def watched(name, loss):
        before = {m: [p.clone() for p in getattr(method, m).parameters()] for m in "GD"}
        descend(name, loss)
        pairs = {m: zip(before[m], getattr(method, m).parameters(), strict=True) for m in "GD"}
        seen.append((name, {m for m in "GD" if any(not torch.equal(p, q) for p, q in pairs[m])}))

    optimisers.descend = watched
    phase.step(batches(method), 0, optimisers)
    assert seen == [("D", {"D"}), ("G", {"G"})]


@pytest.mark.parametrize("tanh", [True, False])
def test_losses_are_the_cards(tanh):
    """Critic: D(r) - D(y) + 10 penalty; generator: D(y) + 100 |y - x|, which is |M| without tanh."""
    method = build(tanh=tanh).double().eval()
    batch = next(batches(method))
    x, r = batch.image.double(), batch.healthy.double()
    m = method.G(x)
    y = torch.tanh(x + m) if tanh else x + m
    torch.testing.assert_close(method.translate(x), y)
    half = torch.full((3, 1, 1, 1), 0.5, dtype=torch.float64)
    d, g = method.critic_loss(r, y.detach(), half), method.generator_loss(x, y)
    penalty = gradient_penalty(method.D, r, y, half)
    torch.testing.assert_close(d.total, method.D(r).mean() - method.D(y).mean() + 10 * penalty)
    change = (y - x).abs().mean() if tanh else m.abs().mean()
    torch.testing.assert_close(g.total, method.D(y).mean() + 100 * change)


@pytest.mark.parametrize("kind", ["whole", "released"])
def test_the_penalty_is_on_the_whole_gradient_or_as_released_on_each_column(kind):
    method = build(penalty=kind).double()
    batch = next(batches(method))
    r, y = batch.healthy.double(), batch.image.double()
    alpha = torch.rand(3, 1, 1, 1, dtype=torch.float64)
    found = method.critic_loss(r, y, alpha)["gp"] / 10
    between = (alpha * r + (1 - alpha) * y).requires_grad_()
    gradient = torch.autograd.grad(method.D(between).sum(), between)[0]
    if kind == "whole":
        norms = [g.square().sum().sqrt() for g in gradient]
    else:
        norms = [gradient[i, 0, :, j].square().sum().sqrt() for i in range(3) for j in range(32)]
    torch.testing.assert_close(found, torch.stack([(n - 1) ** 2 for n in norms]).mean())


def test_a_gradient_of_zero_gives_no_nan():
    weight = torch.zeros(1, requires_grad=True)
    x = torch.rand(2, 1, 4, 4)
    for penalty in (gradient_penalty, column_penalty):
        loss = penalty(lambda y: weight * y.square(), x, x + 1)
        (slope,) = torch.autograd.grad(loss, weight)
        assert loss.item() == 1
        assert bool(slope.isfinite())


@pytest.mark.parametrize("tanh", [True, False])
def test_the_additive_map_is_the_healed_image_minus_the_image(tanh):
    method = build(tanh=tanh).eval()
    x = next(batches(method)).image
    with torch.no_grad():
        method.G.last.weight.mul_(20)
        found, m = method.predict(x), method.G(x)
    y = torch.tanh(x + m) if tanh else x + m
    torch.testing.assert_close(found.maps["additive"], y - x)
    torch.testing.assert_close(found.healed, y.clamp(-1, 1))
    torch.testing.assert_close(found.anomaly_map, (found.healed - x).abs() / 2)
    torch.testing.assert_close(found.score, found.anomaly_map.mean((1, 2, 3)))
    assert (y.abs().max() > 1) == (not tanh)


def test_running_averages_form_while_training_and_serve_at_inference():
    method = build()
    norm = method.G.down[0][1]
    before = norm.running_mean.clone()
    phase = method.phases()[0]
    phase.step(batches(method), 0, Optimisers(phase.optimisers))
    after, x = norm.running_mean.clone(), next(batches(method)).image
    assert not torch.equal(before, after)
    with torch.no_grad():
        alone = method.eval().predict(x[:1]).healed
        assert torch.equal(norm.running_mean, after)
        norm.running_mean.add_(1)
        assert not torch.allclose(method.predict(x[:1]).healed, alone)


@pytest.mark.parametrize(
    "setting", [{"lr": 0.0}, {"n_critic": 0}, {"n_critic_much": 0}, {"much_every": 0}, {"much_first": -1}, {"steps": 0}]
)
def test_settings_that_cannot_work_are_refused(setting):
    with pytest.raises(ConfigError) as caught:
        VAGAN.Config(**setting)
    assert next(iter(setting)) in str(caught.value)


def test_half_precision_trains_and_answers_in_float32():
    method = build()
    phase = method.phases()[0]
    with torch.autocast("cpu", torch.bfloat16):
        losses = phase.step(batches(method), 1, Optimisers(phase.optimisers))
        with torch.no_grad():
            found = method.eval().predict(next(batches(method)).image)
    assert all(t.dtype == torch.float32 for group in losses.values() for t in group.values())
    assert found.healed.dtype == found.score.dtype == found.maps["additive"].dtype == torch.float32
