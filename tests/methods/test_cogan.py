"""CoGAN: two games from one z, and the search for it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from comparing import build, images

from healmap import recipes
from healmap.methods.cogan import CoGAN, distance
from healmap.methods.unit import A, B


def test_cogan_plays_two_log_games_from_one_z():
    method, a, b = build(CoGAN).eval(), images(), images(seed=2)
    b_z, a_z = method.draw(torch.randn(3, 8))
    ones, zeros = torch.ones(3, 1), torch.zeros(3, 1)
    critic, losses = method.critic_loss(a, b, a_z, b_z), method.generator_loss(a_z, b_z)
    for name, domain, x, fake in (("healthy", B, b, b_z), ("diseased", A, a, a_z)):
        of_x, of_fake = method.D(x, domain).sigmoid(), method.D(fake, domain).sigmoid()
        torch.testing.assert_close(critic[name], F.binary_cross_entropy(of_x, ones) + F.binary_cross_entropy(of_fake, zeros))
        torch.testing.assert_close(losses[name], F.binary_cross_entropy(of_fake, ones))


def test_cogans_two_pictures_share_their_trunk():
    method = build(CoGAN).eval()
    with torch.no_grad():
        method.G.last[B].load_state_dict(method.G.last[A].state_dict())
        b, a = method.draw(torch.randn(3, 8))
    assert torch.equal(a, b)


def test_cogan_finds_its_own_pictures():
    method = build(CoGAN, search_steps=200, search_starts=16).eval()
    with torch.no_grad():
        for p in method.G.parameters():
            p.add_(0.1 * torch.randn_like(p))
        pictures = method.draw(torch.randn(3, 8))
        for domain in (B, A):
            error = distance(pictures[domain], method.draw(method.search(pictures[domain], domain))[domain])
            spread = distance(pictures[domain], pictures[domain].mean(0))
            assert (error < 0.1 * spread).all()


def test_cogan_searches_better_the_longer_it_searches():
    x, errors = images(), []
    for steps in (0, 5, 40):
        method = build(CoGAN, search_steps=steps).eval()
        with torch.no_grad():
            errors.append(distance(x, method.draw(method.search(x, A))[A]))
    assert (errors[0] >= errors[1]).all()
    assert (errors[1] > errors[2]).all()


def test_cogan_begins_at_the_nearest_start():
    method, x = build(CoGAN, search_steps=0, search_starts=7).eval(), images()
    with torch.no_grad():
        starts = torch.randn(7, 8, generator=torch.Generator().manual_seed(0))
        found = method.search(x, B)
        for i in range(3):
            errors = [(x[i] - method.draw(z[None])[B][0]).square().mean().item() for z in starts]
            assert torch.equal(found[i], starts[errors.index(min(errors))])


def test_cogans_search_touches_neither_chance_nor_gradients_nor_weights():
    method, x = build(CoGAN).eval(), images()
    for p in method.parameters():
        p.grad = torch.ones_like(p)
    chance, state = torch.get_rng_state(), {k: v.clone() for k, v in method.state_dict().items()}
    with torch.no_grad():
        together, alone = method.search(x, A), method.search(x[1:2], A)
        assert not torch.is_grad_enabled()
    assert not together.requires_grad
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), chance)
    assert all(torch.equal(v, state[k]) for k, v in method.state_dict().items())
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in method.parameters())


def test_cogan_heals_by_the_z_of_the_other_domain():
    method, x = build(CoGAN).eval(), images()
    with torch.no_grad():
        torch.testing.assert_close(method.heal(x), method.draw(method.search(x, A))[B])
        ill = method.translate_to(x, torch.ones(3, dtype=torch.int64))
        torch.testing.assert_close(ill, method.draw(method.search(x, B))[A])


def test_fact_published_settings():
    found = recipes.get("cogan-digits")
    m = found.method
    assert (found.data.size, found.data.batch_size) == (28, 64)
    assert (m.latent, m.lr, m.betas, m.weight_decay) == (100, 2e-4, (0.5, 0.999), 5e-4)
