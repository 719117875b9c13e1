"""f-AnoGAN: the published networks, both phases' equations, what each phase may move, and patches cut and stitched."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise, repeat

import pytest
import torch
import torch.nn.functional as F

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods import fanogan, patches
from healmap.methods.base import Optimisers
from healmap.methods.fanogan import FAnoGAN
from healmap.networks.fanogan import Critic, DoublingConv, Encoder, Generator, HalvingConv
from healmap.types import Batch, Needs, Spec


def build(seed=0, height=32, width=32, **settings):
    """In double precision, norms no longer trivial, in ``eval()``."""
    torch.manual_seed(seed)
    method = FAnoGAN(replace(FAnoGAN.tiny()[0], **settings), Spec(height=height, width=width)).double()
    with torch.no_grad():
        for name, value in method.state_dict().items():
            if value.is_floating_point():
                value.add_(0.1 * (torch.rand_like(value) if name.endswith("var") else torch.randn_like(value)))
    return method.eval()


def images(n=3, height=32, width=32, seed=1):
    """Bright noise with a dark rim, (n, 1, height, width) in [-1, 1]."""
    noise = torch.rand(n, 1, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.pad(noise[..., 3:-3, 3:-3] + 0.5, (3, 3, 3, 3)) / 0.75 - 1


def run_phase(method, number, steps=3, seed=5):
    torch.manual_seed(seed)
    method.train()
    phase = method.phases()[number]
    optimisers = Optimisers(phase.optimisers)
    return [phase.step(repeat(Batch(images())), k, optimisers) for k in range(steps)]


def changed(method, before):
    """Networks of which any tensor, stored statistics included, is another."""
    return {k.partition(".")[0] for k, v in method.state_dict().items() if not torch.equal(v, before[k])}


def copy(method):
    return {k: v.clone() for k, v in method.state_dict().items()}


# Networks


def test_fact_published_sizes():
    """The released layers at 64 px: 8,539,329, 7,490,689 and 8,531,200 parameters; 8192 features."""
    with torch.device("meta"):
        nets = [net(1, (64, 64)) for net in (Generator, Critic, Encoder)]
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [8_539_329, 7_490_689, 8_531_200]
    assert nets[1].numbers == 8192


def test_one_convolution_instead_of_two_operations():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    half, twice = (conv(3, 5, 3, padding=1).double() for conv in (HalvingConv, DoublingConv))
    torch.testing.assert_close(half(x), F.avg_pool2d(F.conv2d(x, half.weight, half.bias, padding=1), 2))
    big = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(twice(x), F.conv2d(big, twice.weight, twice.bias, padding=1))


def layer_norm(t, x, name):
    mean, var = x.mean((1, 2, 3), keepdim=True), x.var((1, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt() * t[f"{name}.weight"][:, None, None] + t[f"{name}.bias"][:, None, None]


def stored_norm(t, x, name):
    mean, var, weight, bias = (t[f"{name}.{k}"][:, None, None] for k in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / (var + 1e-3).sqrt() * weight + bias


def conv(t, x, name):
    weight = t[f"{name}.weight"]
    return F.conv2d(x, weight, t.get(f"{name}.bias"), padding=weight.shape[-1] // 2)


def trunk(t, x, norm):
    h, i = conv(t, x, "first"), 0
    while f"blocks.{i}.shortcut.weight" in t:
        b = f"blocks.{i}"
        y = conv(t, norm(t, h, f"{b}.norm1").relu(), f"{b}.conv1")
        y = F.avg_pool2d(conv(t, norm(t, y, f"{b}.norm2").relu(), f"{b}.conv2"), 2)
        h, i = y + conv(t, F.avg_pool2d(h, 2), f"{b}.shortcut"), i + 1
    return h.flatten(1)


def test_networks_are_the_released_layers_in_their_order():
    method, x = build(), images()
    t = method.D.state_dict()
    features = trunk(t, x, layer_norm)
    torch.testing.assert_close(method.D.features(x), features)
    torch.testing.assert_close(method.D(x), features @ t["last.weight"].T + t["last.bias"])

    t = method.E.state_dict()
    z = (trunk(t, x, stored_norm) @ t["last.weight"].T + t["last.bias"]).tanh()
    torch.testing.assert_close(method.E(x), z)

    t, i = method.G.state_dict(), 0
    h = (z @ t["first.weight"].T + t["first.bias"]).view(3, -1, 4, 4)
    while f"blocks.{i}.shortcut.weight" in t:
        b = f"blocks.{i}"
        y = F.interpolate(stored_norm(t, h, f"{b}.norm1").relu(), scale_factor=2.0)
        y = conv(t, stored_norm(t, conv(t, y, f"{b}.conv1"), f"{b}.norm2").relu(), f"{b}.conv2")
        h, i = y + conv(t, F.interpolate(h, scale_factor=2.0), f"{b}.shortcut"), i + 1
    torch.testing.assert_close(method.G(z), conv(t, stored_norm(t, h, "norm").relu(), "last").tanh())
    assert i == 3  # 4, 8, 16, 32


def test_first_weights():
    torch.manual_seed(0)
    w = Critic(3, (32, 32)).state_dict()
    for name, fans, factor in (("first", (3 + 64) * 9, 2), ("blocks.0.shortcut", 64 + 128, 2), ("blocks.1.conv2", 384 * 9, 4)):
        assert float(w[f"{name}.weight"].std()) == pytest.approx(math.sqrt(factor / fans), rel=0.05)
        assert float(w[f"{name}.weight"].abs().max()) <= math.sqrt(3 * factor / fans)
        assert not w[f"{name}.bias"].any()


@pytest.mark.parametrize(("given", "reaches"), [("tanh", False), ("unbounded", True)])
def test_range_of_the_encoder(given, reaches):
    method = build(encoder_range=given)
    with torch.no_grad():
        method.E.last.weight.mul_(100)
        assert (float(method.E(images()).abs().max()) > 1) == reaches


# Phase 1


def test_wasserstein_terms_and_the_penalty_on_the_norm_of_the_whole_gradient():
    method, x, fake = build(lambda_gp=7.0), images(), images(seed=2)
    alpha = torch.rand(3, 1, 1, 1, dtype=torch.float64)
    losses = method.critic_loss(x, fake, alpha)
    norms = []
    for i in range(3):
        between = (alpha[i] * x[i] + (1 - alpha[i]) * fake[i])[None].requires_grad_()
        (gradient,) = torch.autograd.grad(method.D(between).sum(), between)
        norms.append(math.sqrt(sum(float(g) ** 2 for g in gradient.flatten())))
    expected = {
        "real": -sum(method.D(x[i : i + 1]).item() for i in range(3)) / 3,
        "fake": sum(method.D(fake[i : i + 1]).item() for i in range(3)) / 3,
        "gp": 7 * sum((n - 1) ** 2 for n in norms) / 3,
    }
    assert {k: v.item() for k, v in losses.items()} == pytest.approx(expected)
    assert method.generator_loss(fake).total.item() == pytest.approx(-expected["fake"])


def test_the_gan_moves_its_own_networks_and_g_at_every_nth_step():
    method = build(n_critic=3)
    before = copy(method)
    losses = run_phase(method, 0, steps=3)
    assert [set(group) for group in losses] == [{"D"}, {"D"}, {"D", "G"}]
    assert changed(method, before) == {"G", "D"}
    assert all(group["D"]["gp"] > 0 for group in losses)


# Phase 2


def test_encoder_loss_is_izi_f():
    method, x = build(kappa=0.3), images()
    losses = method.encoder_loss(x)
    y = method.G(method.E(x))
    f_x, f_y = (trunk(method.D.state_dict(), v, layer_norm) for v in (x, y))
    assert losses["image"].item() == pytest.approx(((x - y) ** 2).sum().item() / x.numel())
    assert losses["features"].item() == pytest.approx(0.3 * ((f_x - f_y) ** 2).sum().item() / f_x.numel())
    losses.total.backward()
    for k, p in method.E.named_parameters():
        if not p.grad.any():
            print("ZERO", k)
    assert all(p.grad is not None and bool(p.grad.any()) for p in method.E.parameters())


def test_the_encoder_phase_moves_nothing_else():
    method = build()
    before = copy(method)
    losses = run_phase(method, 1)
    assert changed(method, before) == {"E"}
    assert [set(group) for group in losses] == [{"E"}] * 3
    assert any("running_mean" in k and not torch.equal(v, before[k]) for k, v in method.state_dict().items())


def test_the_encoder_learns_for_the_generator_of_inference():
    """Batch norm in inference mode: what the loss sees of one image does not depend on the others."""
    method = build()
    method.train()
    kept, seen = method.reconstruct, []
    method.reconstruct = lambda x: seen.append(method.G(torch.zeros(2, 8, dtype=x.dtype))) or kept(x)
    method.encoder_step(repeat(Batch(images())), 0, Optimisers(method.phases()[1].optimisers))
    torch.testing.assert_close(seen[0], method.eval().G(torch.zeros(2, 8, dtype=torch.float64)))


def test_phases():
    method = build(steps=10, encoder_share=0.3, encoder_lr=2e-5)
    gan, encoder = method.phases()
    assert (gan.steps, encoder.steps) == (7, 3)
    assert (gan.ready, encoder.ready) == (False, True)
    settings = encoder.optimisers["E"].param_groups[0]
    assert (settings["lr"], settings["alpha"], settings["eps"]) == (2e-5, 0.9, 1e-5)
    assert [p.steps for p in build(steps=2, encoder_share=0.01).phases()] == [1, 1]


def test_the_encoder_begins_with_small_steps():
    """TensorFlow's RMSProp: mean squares of 1."""
    method = build(encoder_lr=2e-5)
    before = copy(method)
    run_phase(method, 1, steps=1)
    for name, p in method.E.named_parameters():
        step = 2e-5 * p.grad / (0.9 + 0.1 * p.grad**2 + 1e-10).sqrt()
        torch.testing.assert_close(before[f"E.{name}"] - p.detach(), step, rtol=1e-4, atol=1e-9)


# Inference


def test_three_scores():
    x = images()
    found = {s: build(score=s, kappa=0.7).predict(x) for s in ("anomaly", "mean", "max")}
    method = build(kappa=0.7)
    y = method.G(method.E(x))
    f_x, f_y = (trunk(method.D.state_dict(), v, layer_norm) for v in (x, y))
    a = ((x - y) ** 2).mean((1, 2, 3)) + 0.7 * ((f_x - f_y) ** 2).mean(1)
    torch.testing.assert_close(found["anomaly"].score, a)
    torch.testing.assert_close(found["mean"].score, (x - y).abs().mean((1, 2, 3)) / 2)
    torch.testing.assert_close(found["max"].score, (x - y).abs().amax((1, 2, 3)) / 2)
    torch.testing.assert_close(found["max"].anomaly_map, (x - y).abs() / 2)
    torch.testing.assert_close(found["max"].healed, y)


def test_a_patch_of_the_images_size_is_the_whole_image():
    whole, patch = build(), build(patch=32)
    a, b = whole.predict(images()), patch.predict(images())
    assert torch.equal(a.score, b.score)
    assert torch.equal(a.healed, b.healed)
    assert torch.equal(whole.shown(images()), images())


@pytest.mark.parametrize("size", [(50, 70), (16, 33), (48, 48)])
def test_patches_are_averaged(size):
    method, x = build(*(0, *size), patch=16, stride=7, foreground="all"), images(2, *size)
    tops, lefts = (patches.starts(side, 16, 7) for side in size)
    total, count, anomaly = torch.zeros_like(x), torch.zeros_like(x), []
    for top in tops:
        for left in lefts:
            at = (..., slice(top, top + 16), slice(left, left + 16))
            y = method.G(method.E(x[at]))
            total[at] += y
            count[at] += 1
            anomaly.append(sum(method.residuals(x[at], y)))
    found = method.predict(x)
    torch.testing.assert_close(found.healed, total / count)
    torch.testing.assert_close(found.score, sum(anomaly) / len(anomaly))


def test_patches_come_in_passes_of_bounded_size(monkeypatch):
    method, x = build(0, 48, 48, patch=16, stride=8), images(3, 48, 48)
    expected, seen = method.predict(x), []
    monkeypatch.setattr(fanogan, "AT_ONCE", 7)
    kept = method.reconstruct
    method.reconstruct = lambda patch: seen.append(len(patch)) or kept(patch)
    found = method.predict(x)
    assert (max(seen), sum(seen)) == (6, 3 * 5 * 5)
    torch.testing.assert_close(found.healed, expected.healed)
    torch.testing.assert_close(found.score, expected.score)


def test_each_image_has_its_own_patches():
    method = build(0, 50, 40, patch=16, stride=8)
    x = images(3, 50, 40)
    x[1, :, :, 20:] = -1  # another image's background
    together, alone = method.predict(x), method.predict(x[1:2])
    torch.testing.assert_close(together.score[1:2], alone.score)
    torch.testing.assert_close(together.anomaly_map[1:2], alone.anomaly_map)
    anomaly = []
    for top, left in patches.corners((50, 40), (16, 16), 8):
        patch = x[1:2, :, top : top + 16, left : left + 16]
        if patches.occupied(x[1:2], (16, 16))[0, top, left]:
            anomaly.append(sum(method.residuals(patch, method.reconstruct(patch))))
    assert len(anomaly) < len(patches.corners((50, 40), (16, 16), 8))
    torch.testing.assert_close(alone.score, sum(anomaly) / len(anomaly))
    assert not alone.anomaly_map[..., 36:].any()  # no patch there holds anything of the body
    assert alone.anomaly_map[..., :20].all()


def test_patches_in_training_and_of_one_seed_the_same():
    method = build(0, 64, 48, patch=16, patches=5)
    seen = []
    for _ in range(2):
        torch.manual_seed(3)
        seen.append(method.shown(images(2, 64, 48)))
    assert seen[0].shape == (10, 1, 16, 16)
    assert torch.equal(*seen)
    before = copy(method)
    phase = method.phases()[0]
    phase.step(repeat(Batch(images(2, 64, 48))), 1, Optimisers(phase.optimisers))
    assert changed(method, before) >= {"D"}


@pytest.mark.parametrize(
    ("settings", "size", "advice"),
    [
        ({}, 30, "32"),
        ({}, 7, "8"),
        ({"patch": 24, "stride": 8}, 64, None),
        ({"patch": 30, "stride": 8}, 64, "32"),
        ({"patch": 64}, 48, "64"),
        ({"patch": 16, "stride": 17}, 48, "8"),
        ({"encoder_share": 1.0}, 32, "0.5"),
        ({"kappa": -1.0}, 32, "0"),
        ({"stride": 8}, 32, "patch=64"),
        ({"patches": 2}, 32, "patch=64"),
        ({"foreground": "all"}, 32, "patch=64"),
        ({"betas": (0.5, 1.5)}, 32, "published"),
    ],
)
def test_settings_work_or_are_refused_with_advice(settings, size, advice):
    config = FAnoGAN.tiny()[0]
    if advice is None:
        FAnoGAN(replace(config, **settings), Spec(height=size, width=size))
        return
    with pytest.raises(ConfigError, match=f": .*{advice}"):
        FAnoGAN(replace(config, **settings), Spec(height=size, width=size))


# Patches


def test_what_is_cut_is_stitched():
    x = images(2, 45, 61)
    places, stitch = patches.corners((45, 61), (16, 20), 11), patches.Stitch(x)
    stitch.add(patches.cut(x, places, (16, 20)), places, torch.ones(len(places), 2))
    torch.testing.assert_close(stitch.mean(), x)
    assert bool((stitch.count >= 1).all())


def test_stitching_is_the_mean_of_the_patches_that_count():
    x, places = images(2, 12, 12), [(0, 0), (4, 2), (4, 4)]
    made, weight = torch.rand(6, 1, 8, 8, dtype=torch.float64), torch.tensor([[1, 1], [0, 1], [1, 1]])
    stitch = patches.Stitch(x)
    stitch.add(made, places, weight)
    found = stitch.mean()
    for n in range(2):
        for r in range(12):
            for c in range(12):
                held = [
                    float(made[2 * k + n, 0, r - top, c - left])
                    for k, (top, left) in enumerate(places)
                    if weight[k, n] and top <= r < top + 8 and left <= c < left + 8
                ]
                expected = sum(held) / len(held) if held else float(x[n, 0, r, c])
                assert float(found[n, 0, r, c]) == pytest.approx(expected)


@pytest.mark.parametrize(("length", "side", "stride"), [(64, 64, 32), (65, 64, 32), (100, 64, 32), (256, 64, 32), (31, 8, 3)])
def test_patches_cover_a_side_and_end_flush(length, side, stride):
    found = patches.starts(length, side, stride)
    assert (found[0], found[-1]) == (0, length - side)
    assert all(0 < b - a <= stride for a, b in pairwise(found))


def test_drawn_patches_lie_in_their_images_and_hold_some_of_the_body():
    x = torch.rand(2, 1, 40, 40, generator=torch.Generator().manual_seed(0)) - 1.9  # noise tells places apart
    x[0, :, 2:12, 2:12] += 0.9
    x[1, :, 25:38, 20:30] += 0.9
    allowed, everywhere = patches.occupied(x, (8, 10)), x.unfold(2, 8, 1).unfold(3, 10, 1)
    torch.manual_seed(0)
    for where, inside in (("auto", True), ("all", False)):
        drawn = patches.draw(x, (8, 10), 50, where)
        hits = [(everywhere[i // 50, 0] == patch[0]).all(-1).all(-1).nonzero() for i, patch in enumerate(drawn)]
        assert all(len(hit) == 1 for hit in hits)
        seen = {(i // 50, *hit[0].tolist()) for i, hit in enumerate(hits)}
        assert len(seen) > 60
        assert all(bool(allowed[place]) for place in seen) == inside


def test_a_patch_counts_if_it_holds_some_of_the_body():
    x = images(2, 30, 34)
    x[1] = -1  # nothing at all: every patch counts
    x[0, :, :, 17:] = -1
    body, found = patches.foreground(x), patches.occupied(x, (6, 9))
    for r in range(25):
        for c in range(26):
            assert bool(found[0, r, c]) == bool(body[0, 0, r : r + 6, c : c + 9].any())
    assert bool(found[1].all())
    assert bool(patches.occupied(x, (6, 9), "all").all())


# Recipes


def test_fact_settings():
    """Authors' code: batch 64 at 64 px, five critic steps, penalty 10, Adam 1e-4 (0, 0.9), RMSProp 5e-5 for 50,000 steps."""
    e, p = recipes.get("f-anogan"), recipes.get("f-anogan-patches")
    m = e.method
    assert (m.latent, m.width, m.encoder_range, m.lambda_gp, m.n_critic, m.kappa) == (128, 64, "tanh", 10, 5, 1)
    assert (m.lr, m.betas, m.encoder_lr, m.steps * m.encoder_share) == (1e-4, (0, 0.9), 5e-5, 50_000)
    assert (e.data.size, e.data.batch_size, e.data.flip, m.score) == (64, 64, True, "anomaly")
    assert (p.method.patch, p.data.batch_size * p.method.patches) == (64, 64)
    assert FAnoGAN.needs is Needs.HEALTHY


@pytest.mark.parametrize("name", ["f-anogan-small", "f-anogan-patches-small"])
def test_small_recipes_can_be_built(name):
    e = recipes.get(name)
    method = FAnoGAN(e.method, Spec(height=e.data.size, width=e.data.size)).eval()
    with torch.no_grad():
        assert method.predict(images(1, 64, 64).float()).score.shape == (1,)
