"""StarGAN, Fixed-Point GAN and HealthyGAN: what a step does, and what each switch changes."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import pytest
import torch

from healmap.errors import ConfigError
from healmap.methods.base import Optimisers
from healmap.methods.fixedpoint import FixedPointGAN
from healmap.methods.healthygan import HealthyGAN
from healmap.methods.stargan import StarGAN
from healmap.types import Batch, Domains, Spec

METHODS = {"stargan": StarGAN, "fixed-point-gan": FixedPointGAN, "healthygan": HealthyGAN}


def build(cls, seed=0, spec=None, **settings):
    torch.manual_seed(seed)
    config, tiny = cls.tiny()
    return cls(replace(config, **settings), spec or tiny)


def batch_of(method, n=4, seed=1):
    g = torch.Generator().manual_seed(seed)
    s = method.spec
    x, b = (torch.rand(n, s.channels, s.height, s.width, generator=g) * 2 - 1 for _ in range(2))
    if isinstance(method, HealthyGAN):
        return Batch(x, healthy=b)
    k = len(s.domains.names)
    label = torch.arange(n) % k if s.domains.exclusive else (torch.rand(n, k, generator=g) > 0.5).float()
    return Batch(x, label)


def run(method, steps, autocast=False):
    phase = method.phases()[0]
    optimisers, batches, found = Optimisers(phase.optimisers), repeat(batch_of(method)), []
    for k in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found.append(phase.step(batches, k, optimisers))
    return found


@pytest.mark.parametrize("name", METHODS)
def test_the_generator_moves_at_every_nth_step_and_the_critic_at_each(name):
    method = build(METHODS[name], n_critic=3)
    for k in range(1, 4):
        before = {m: [p.clone() for p in getattr(method, m).parameters()] for m in "GD"}
        phase = method.phases()[0]
        losses = phase.step(repeat(batch_of(method)), k - 1, Optimisers(phase.optimisers))
        after = {m: list(getattr(method, m).parameters()) for m in "GD"}
        moved = {m: any(not torch.equal(p, q) for p, q in zip(before[m], after[m], strict=True)) for m in "GD"}
        assert moved == {"D": True, "G": k == 3}
        assert ("G" in losses) == (k == 3)
        assert all(torch.isfinite(t) and t.ndim == 0 for group in losses.values() for t in group.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_step_leaves_no_gradients_in_the_other_network(name):
    method = build(METHODS[name], n_critic=1)
    phase = method.phases()[0]
    optimisers = Optimisers(phase.optimisers)
    descend, seen = optimisers.descend, {}

    def watched(which, loss):
        method.zero_grad(set_to_none=True)
        descend(which, loss)
        seen[which] = {m: any(p.grad is not None for p in getattr(method, m).parameters()) for m in "GD"}

    optimisers.descend = watched
    phase.step(repeat(batch_of(method)), 0, optimisers)
    assert seen == {"D": {"G": False, "D": True}, "G": {"G": True, "D": False}}


@pytest.mark.parametrize("name", METHODS)
def test_one_translation_serves_both_updates(name):
    """Images through G in a step that moves it: there and back for each target, no further pass for the critic."""
    method = build(METHODS[name], n_critic=1)
    seen = []
    forward = method.G.forward
    method.G.forward = lambda x, *c: seen.append(len(x)) or forward(x, *c)
    run(method, 1)
    assert seen == {"stargan": [4, 4], "fixed-point-gan": [8, 8], "healthygan": [8]}[name]


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_trains_and_answers_in_float32(name):
    method = build(METHODS[name])
    full, half = run(build(METHODS[name]), 2), run(method, 2, autocast=True)
    for a, b in zip(full, half, strict=True):
        for group in a:
            for term in a[group]:
                assert b[group][term].dtype == torch.float32
                assert b[group][term].item() == pytest.approx(a[group][term].item(), rel=0.1, abs=0.02), term
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        prediction = method.predict(batch_of(method).image)
    assert prediction.score.dtype == prediction.anomaly_map.dtype == prediction.healed.dtype == torch.float32


def test_fixed_point_gan_without_its_additions_is_stargan():
    star = build(StarGAN, decay="constant", n_critic=2)
    plain = build(FixedPointGAN, delta=False, fixed_point=False, n_critic=2)
    assert all(torch.equal(a, b) for a, b in zip(star.parameters(), plain.parameters(), strict=True))
    torch.manual_seed(5)
    a = run(star, 4)
    torch.manual_seed(5)
    b = run(plain, 4)
    same = {"rec": "cyc"}
    for one, other in zip(a, b, strict=True):
        for group in one:
            for term, value in one[group].items():
                assert torch.equal(value, other[group][same.get(term, term)])
    assert all(torch.equal(p, q) for p, q in zip(star.parameters(), plain.parameters(), strict=True))


@pytest.mark.parametrize("delta", [True, False])
def test_delta_adds_the_input_before_the_tanh(delta):
    method = build(FixedPointGAN, delta=delta)
    x, c = batch_of(method).image, torch.zeros(4, 1)
    with torch.no_grad():
        method.G.main[-1].weight.zero_()
        torch.testing.assert_close(method.translate(x, c), torch.tanh(x) if delta else torch.zeros_like(x))


def test_critic_terms_of_the_two_targets():
    losses = {}
    for kind in ("released", "paper", "both"):
        method = build(FixedPointGAN, critic_fakes=kind)
        b = batch_of(method)
        c = method.encode(b.label)
        with torch.no_grad():
            fakes = method.fakes(b.image, c, 1 - c)
            cross, same = (method.D.source(f).mean() for f in fakes.split(4))
        losses[kind] = method.critic_loss(b.image, c, fakes, torch.full((4, 1, 1, 1), 0.5))["fake"].item()
    assert losses["released"] == pytest.approx(cross.item(), rel=1e-5)
    assert losses["paper"] == pytest.approx((cross + same).item(), rel=1e-5)
    assert losses["both"] == pytest.approx((cross + same).item() / 2, rel=1e-5)


@pytest.mark.parametrize("cls", [StarGAN, FixedPointGAN])
@pytest.mark.parametrize(
    ("domains", "encoding", "planes", "resolved"),
    [
        (Domains(), "auto", 1, "binary"),
        (Domains(), "one-hot", 2, "one-hot"),
        (Domains(("healthy", "a", "b")), "auto", 3, "one-hot"),
        (Domains(("healthy", "a", "b")), "multi-hot", 3, "multi-hot"),
        (Domains(("male", "young"), exclusive=False), "auto", 2, "multi-hot"),
    ],
)
def test_encodings(cls, domains, encoding, planes, resolved):
    method = build(cls, spec=Spec(height=32, width=32, domains=domains), encoding=encoding)
    assert (method.encoding, method.planes) == (resolved, planes)
    run(method, 2)
    b = batch_of(method)
    codes = method.encode(b.label)
    assert codes.shape == (4, planes)
    healthy = method.healthy_code(b.image)
    assert healthy.shape == (4, planes)
    expected = [0.0] * planes
    if domains.exclusive and resolved != "binary":
        expected[0] = 1.0
    assert healthy[0].tolist() == expected
    if domains.exclusive:
        assert torch.equal(codes[b.label == 0], healthy[b.label == 0])
    with torch.no_grad():
        assert method.predict(b.image).healed.shape == b.image.shape


@pytest.mark.parametrize(
    ("domains", "encoding"),
    [
        (Domains(("healthy", "a", "b")), "binary"),
        (Domains(("male", "young"), exclusive=False), "one-hot"),
        (Domains(("healthy",)), "auto"),
    ],
)
def test_contradicting_domains_and_encodings_are_refused(domains, encoding):
    with pytest.raises(ConfigError):
        build(StarGAN, spec=Spec(height=32, width=32, domains=domains), encoding=encoding)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("setting", [{"lr": 0.0}, {"n_critic": 0}, {"decay_share": 1.5}, {"steps": 0}])
def test_settings_that_cannot_work_are_refused(name, setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        METHODS[name].Config(**setting)


@pytest.mark.parametrize("name", METHODS)
def test_sizes_are_checked_when_a_method_is_built(name):
    config, _ = METHODS[name].tiny()
    with pytest.raises(ConfigError, match="multiple of 4"):
        METHODS[name](config, Spec(height=30, width=32))


def test_healthygan_composes_by_the_mask():
    method = build(HealthyGAN)
    a = batch_of(method).image
    with torch.no_grad():
        method.G.main[-1].weight.zero_()  # logits 0: inner 0, mask 1/2
        t = method.translate(a)
        assert (t.mask == 0.5).all()
        torch.testing.assert_close(t.healed, a / 2)
        torch.testing.assert_close(t.rebuilt, a / 2)
    method = build(HealthyGAN)
    with torch.no_grad():
        t = method.translate(a)
        p = method.predict(a)
    torch.testing.assert_close(t.healed + t.rebuilt, t.inner + a)  # (1) + (2)
    assert torch.equal(p.maps["mask"], t.mask)
    torch.testing.assert_close(p.anomaly_map, (a - t.healed).abs() / 2)
    torch.testing.assert_close(p.score, p.anomaly_map.mean((1, 2, 3)))


def test_healthygan_logs_its_masks_without_descending_them():
    losses = run(build(HealthyGAN), 2)[1]
    assert set(losses["monitor"]) == {"mask_A", "mask_B"}
    assert not any(t.requires_grad for t in losses["monitor"].values())
    assert set(losses["G"]) == {"adv", "id", "rec", "focus"}


def test_scores_are_the_maximum_for_fixed_point_gan_and_the_mean_on_request():
    images = batch_of(build(FixedPointGAN)).image
    with torch.no_grad():
        p, q = (build(FixedPointGAN, score=s).predict(images) for s in ("max", "mean"))
    assert torch.equal(p.score, p.anomaly_map.amax((1, 2, 3)))
    torch.testing.assert_close(q.score, q.anomaly_map.mean((1, 2, 3)))
    assert FixedPointGAN.Config().score == "max"
    assert HealthyGAN.Config().score == "mean"
