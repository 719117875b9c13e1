"""ALAD: published counts, each player's equations, spectral norm, the scores, and what each switch changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods.alad import ALAD
from healmap.methods.base import Optimisers
from healmap.networks.alad import SpectralConv, SpectralLinear, spectral_norm
from healmap.training.average import WeightAverage
from healmap.types import Batch, Spec

NETWORKS = ("E", "G", "D_xz", "D_xx", "D_zz")


def build(seed=0, **settings):
    torch.manual_seed(seed)
    config, spec = ALAD.tiny()
    method = ALAD(replace(config, **settings), spec)
    with torch.no_grad():
        for p in method.parameters():
            p.add_(0.05 * torch.randn_like(p))  # the authors' weights begin so small that all outputs are alike
    return method


def images(n=3, seed=1):
    return torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def codes(n=3, seed=2):
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(seed))


def reached(method, loss):
    """The networks that a loss has a gradient for."""
    named = [(n, p) for n, p in method.named_parameters()]
    found = torch.autograd.grad(loss, [p for _, p in named], retain_graph=True, allow_unused=True)
    return {n.partition(".")[0] for (n, _), g in zip(named, found, strict=True) if g is not None and g.any()}


def test_fact_parameters_of_the_authors_networks():
    with torch.device("meta"):
        method = ALAD(ALAD.Config(), Spec(3, 32, 32))
    counts = [sum(p.numel() for p in method.get_submodule(n).parameters()) for n in NETWORKS]
    assert counts == [3_449_572, 3_449_475, 11_859_329, 226_177, 14_977]
    assert sum(counts) == sum(p.numel() for p in method.parameters()) == 18_999_530
    assert method.D_xx.last.in_features == 16_384


def test_weights_begin_as_the_authors_do():
    torch.manual_seed(0)
    method = ALAD(ALAD.Config(width=32), Spec(1, 32, 32))
    for module in method.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            assert float(module.weight.detach().std()) == pytest.approx(0.01, rel=0.3)
            assert float(module.bias.detach().abs().max()) == 0


def test_losses_are_the_cross_entropies_of_the_paper():
    method, x, z = build().double().eval(), images().double(), codes().double()  # no dropout
    E, G, D_xz, D_xx, D_zz = (method.get_submodule(n) for n in NETWORKS)

    def b(logit, target):
        p = torch.sigmoid(logit)
        return float(-(p if target else 1 - p).log().sum() / len(logit))

    with torch.no_grad():
        code, picture = E(x), G(z)
        D = {
            "xz": b(D_xz(x, code), 1) + b(D_xz(picture, z), 0),
            "xx": b(D_xx(x, x), 1) + b(D_xx(x, G(code)), 0),
            "zz": b(D_zz(z, z), 1) + b(D_zz(z, E(picture)), 0),
        }
        GE = {
            "G": b(D_xz(picture, z), 1),
            "E": b(D_xz(x, code), 0),
            "cyc_x": b(D_xx(x, G(code)), 1),
            "cyc_z": b(D_zz(z, E(picture)), 1),
        }
    assert {k: v.item() for k, v in method.critic_loss(x, z).items()} == pytest.approx(D)
    assert {k: v.item() for k, v in method.generator_loss(x, z).items()} == pytest.approx(GE)


def test_each_term_moves_its_own_players():
    method, x, z = build(), images(), codes()
    found = {k: reached(method, v) for k, v in method.critic_loss(x, z).items()}
    assert found == {"xz": {"D_xz"}, "xx": {"D_xx"}, "zz": {"D_zz"}}
    found = {k: reached(method, v) & {"E", "G"} for k, v in method.generator_loss(x, z).items()}
    assert found == {"G": {"G"}, "E": {"E"}, "cyc_x": {"E", "G"}, "cyc_z": {"E", "G"}}


def test_one_descent_serves_both_g_and_e():
    """The gradient of the sum is, for G, that of its own loss with the cycles, and for E that of its own."""
    method = build().eval()
    losses = method.generator_loss(images(), codes())
    cycles = losses["cyc_x"] + losses["cyc_z"]
    for name in "GE":
        of = list(method.get_submodule(name).parameters())
        together = torch.autograd.grad(losses.total, of, retain_graph=True)
        own = torch.autograd.grad(losses[name] + cycles, of, retain_graph=True)
        for a, b in zip(together, own, strict=True):
            torch.testing.assert_close(a, b)


def test_a_step_moves_the_discriminators_then_g_and_e_on_another_batch():
    method = build()
    optimisers = Optimisers(method.phases()[0].optimisers)
    descend, order = optimisers.descend, []
    given = iter([Batch(images(seed=1)), Batch(images(seed=5))])
    seen = []
    forward = method.E.forward
    method.E.forward = lambda x: seen.append(x) or forward(x)

    def watched(which, loss):
        before = {k: v.clone() for k, v in method.named_parameters()}
        descend(which, loss)
        order.append({k.partition(".")[0] for k, v in method.named_parameters() if not torch.equal(v, before[k])})

    optimisers.descend = watched
    method.step(given, 0, optimisers)
    assert order == [{"D_xz", "D_xx", "D_zz"}, {"E", "G"}]
    assert next(given, None) is None
    assert torch.equal(seen[0], images(seed=1))
    assert torch.equal(seen[2], images(seed=5))


def test_spectral_norm_divides_by_the_largest_singular_value():
    torch.manual_seed(0)
    for layer, x in ((SpectralConv(3, 6, 4, padding=1), torch.randn(2, 3, 8, 8)), (SpectralLinear(10, 7), torch.randn(2, 10))):
        layer.train()
        for _ in range(200):
            layer(x)
        sigma = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        torch.testing.assert_close(spectral_norm(layer.weight, layer.u, keep=False), layer.weight / sigma, rtol=1e-4, atol=1e-6)
        kept = layer.u.clone()
        layer.eval()(x)
        assert torch.equal(layer.u, kept)
        answer = layer(x)
        layer.u.mul_(0.3)  # as an average of several would be shorter
        torch.testing.assert_close(layer(x), answer)


def test_spectral_norm_takes_its_vectors_for_constants():
    W, u = torch.randn(5, 7, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64)
    v = (W.detach().T @ u) / (W.detach().T @ u).norm()
    left = (W.detach() @ v) / (W.detach() @ v).norm()
    push = torch.randn(5, 7, dtype=torch.float64)
    (found,) = torch.autograd.grad((spectral_norm(W, u, keep=False) * push).sum(), W)
    sigma = (left @ W @ v).detach()
    by_hand = push / sigma - (push * W.detach()).sum() / sigma**2 * torch.outer(left, v)  # d(W / σ), dσ = u dW vᵀ
    torch.testing.assert_close(found, by_hand)


@pytest.mark.parametrize("spectral", [True, False])
def test_which_layers_have_a_spectral_norm(spectral):
    method = build(spectral_norm=spectral)
    normed = [n for n, m in method.named_modules() if isinstance(m, SpectralConv | SpectralLinear)]
    count = {n: sum(name.startswith(f"{n}.") for name in normed) for n in NETWORKS}
    assert count == ({"E": 3, "G": 0, "D_xz": 3 + 2 + 1, "D_xx": 2, "D_zz": 2} if spectral else dict.fromkeys(NETWORKS, 0))


def test_the_average_covers_what_scores():
    method = build()
    named = WeightAverage(method, 0.9).tensors()
    assert {n.partition(".")[0] for n in named} == {"E", "G", "D_xx"}
    assert recipes.get("alad").training.ema == 0.999


@torch.no_grad()
def test_scores():
    x = images()
    for kind in ("features", "logits", "l1", "l2"):
        method = build(score=kind).eval()
        found, x_hat = method.predict(x), method.G(method.E(x))
        for i in range(3):
            one, other = x[i : i + 1], x_hat[i : i + 1]
            by_hand = {
                "features": (method.D_xx.features(one, one) - method.D_xx.features(one, other)).abs().sum(),
                "logits": -torch.sigmoid(method.D_xx(one, other)).log().sum(),
                "l1": (one - other).abs().sum(),
                "l2": (one - other).pow(2).sum().sqrt(),
            }[kind]
            assert found.score[i].item() == pytest.approx(float(by_hand), rel=1e-4), kind
        assert found.anomaly_map is None
        torch.testing.assert_close(found.healed, x_hat)
        torch.testing.assert_close(found.maps["residual"], (x - x_hat).abs() / 2)


@pytest.mark.parametrize("joined", ["height", "channels"])
@torch.no_grad()
def test_how_images_are_joined(joined):
    """One below the other a pixel at the far end cannot meet its likeness; in channels it does in the first layer."""
    critic = build(joined=joined).eval().D_xx
    x, changed = images(1), images(1)
    changed[..., -1, :] += 1
    assert critic.features(x, x).shape == (1, 8 * 8 * 8 * (2 if joined == "height" else 1))
    maps = [critic.body(torch.cat([x, y], dim=critic.axis))[0] for y in (x, changed)]
    touched = (maps[0] != maps[1]).any(0).any(1)
    assert bool(touched[-1])
    assert not bool(touched[: len(touched) // 2].any())
    # Borders as TensorFlow's SAME has them: one before, two after, so that halvings are exact.
    assert maps[0].shape[1:] == ((16, 8) if joined == "height" else (8, 8))


def test_without_the_latent_critic():
    method = build(latent_critic=False)
    assert not any(n.startswith("D_zz") for n in method.state_dict())
    assert set(method.critic_loss(images(), codes())) == {"xz", "xx"}
    assert set(method.generator_loss(images(), codes())) == {"G", "E", "cyc_x"}


@pytest.mark.parametrize("side", [64, 128])
def test_larger_images_have_more_halvings_of_the_same_width(side):
    with torch.device("meta"):
        method = ALAD(ALAD.Config(), Spec(3, side, side))
    convolutions = [m.out_channels for m in method.E.body if isinstance(m, nn.Conv2d)]
    assert convolutions == [128, 256, 512, 512, 512][: {64: 4, 128: 5}[side]]
    assert method.D_xx.last.in_features == 16_384 * (side // 32) ** 2


@pytest.mark.parametrize("setting", [{"width": 6}, {"width": 0}, {"latent": 0}, {"lr": -1.0}, {"betas": (0.5, 1.5)}])
def test_settings_that_cannot_work_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        ALAD.Config(**setting)


def test_fact_settings_of_the_authors_code():
    found = recipes.get("alad-cifar10")
    assert (found.method.lr, found.method.betas, found.method.latent) == (2e-4, (0.5, 0.999), 100)
    assert (found.data.batch_size, found.data.size, found.data.channels) == (32, 32, 3)
