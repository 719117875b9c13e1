"""VAE, plain and denoising autoencoder: losses against independent computations, the noise, every reading of the map."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from healmap import recipes
from healmap.errors import ConfigError
from healmap.methods import reconstruction, vae
from healmap.methods.autoencoder import Autoencoder
from healmap.methods.base import Optimisers, amplitude_map
from healmap.methods.denoising_autoencoder import DenoisingAutoencoder, coarse_noise
from healmap.methods.vae import VAE
from healmap.networks.autoencoder import UnifiedAutoencoder
from healmap.types import Batch, Spec

METHODS = {"vae": VAE, "autoencoder": Autoencoder, "unified": Autoencoder, "denoising-autoencoder": DenoisingAutoencoder}
OWN = {"unified": {"network": "unified", "width": 8, "code": 8}}


def build(name, **settings):
    torch.manual_seed(0)
    config, spec = METHODS[name].tiny()
    return METHODS[name](replace(config, **OWN.get(name, {}), **settings), spec)


def discs(n=8, size=32):
    """Discs of differing brightness and size on exact black, (n, 1, size, size) in [-1, 1]."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    r = ((x - size / 2) ** 2 + (y - size / 2) ** 2).sqrt()
    radii, grey = (torch.linspace(a, b, n)[:, None, None, None] for a, b in ((9, 13), (0.4, 0.8)))
    return (r < radii) * grey * 2 - 1


def train(method, x, steps):
    [phase] = method.train().phases()
    optimisers, batches, found = Optimisers(phase.optimisers), repeat(Batch(x)), []
    for k in range(steps):
        optimisers.scale_lr(phase.lr_scale(k, steps))
        [losses] = phase.step(batches, k, optimisers).values()
        found.append(losses.total.item())
    method.eval()
    return found


# Losses


def test_the_divergence_is_that_of_normal_distributions():
    torch.manual_seed(0)
    mu, log_sigma = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    expected = kl_divergence(Normal(mu, log_sigma.exp()), Normal(0.0, 1.0)).sum(1).mean()  # summed over the code
    assert_close(vae.kl_divergence(mu, log_sigma), expected)
    assert vae.kl_divergence(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


def test_the_vae_weighs_its_divergence_against_a_sum_over_pixels():
    method, x, e = build("vae", lambda_kl=3.0, dropout=0.0), discs(4), torch.randn(4, 8)
    losses = method.loss(x, e)
    r, mu, log_sigma = method.net((x + 1) / 2, e)
    expected = torch.stack([(a / 2 + 0.5 - b).abs().sum() for a, b in zip(x, r, strict=True)]).mean()
    assert_close(losses["rec"], expected)
    assert_close(losses["kl"], 3 * kl_divergence(Normal(mu, log_sigma.exp()), Normal(0.0, 1.0)).sum() / 4)
    assert_close(losses.total, losses["rec"] + losses["kl"])


def test_both_heads_of_the_code_learn_from_both_terms():
    method, x = build("vae", dropout=0.0), discs(4)
    for term in ("rec", "kl"):
        method.zero_grad()
        method.loss(x)[term].backward()
        assert all(head.weight.grad.abs().sum() > 0 for head in (method.net.mu, method.net.log_sigma)), term
        assert (method.net.decoder[-1].weight.grad is None) == (term == "kl")


@pytest.mark.parametrize("name", ["autoencoder", "unified"])
def test_the_plain_loss_is_the_mean_difference(name):
    method, x = build(name), discs()
    method.eval()
    r = torch.tanh(method.net(x)) if name == "autoencoder" else 2 * method.net((x + 1) / 2) - 1
    assert_close(method.loss(x)["l1"], sum((a - b).abs().mean() for a, b in zip(x, r, strict=True)) / len(x))


def test_the_denoising_loss_counts_the_body_and_divides_by_all_pixels(monkeypatch):
    method, x, seen = build("denoising-autoencoder"), discs(), []
    forward = method.net.forward
    monkeypatch.setattr(method.net, "forward", lambda v: seen.append(v) or forward(v))
    loss = method.loss(x)["l2"]
    v, inside = (x + 1) / 2, x > -1 + 0.02
    [noisy] = seen
    assert torch.equal(noisy[~inside], v[~inside])  # the background stays black
    assert (noisy != v)[inside].float().mean() > 0.99
    error = (forward(noisy) - v).square()
    assert_close(loss, error[inside].sum() / x.numel())


# Coarse noise


def test_coarse_noise_has_its_sigma_on_its_points_and_is_straight_between_them():
    torch.manual_seed(0)
    noise = coarse_noise(torch.zeros(500, 1, 31, 31), 16, 0.2)  # a point at every second pixel
    assert noise.mean().abs() < 0.01
    # Along each side half of the pixels are points and half lie between two, of which the variance is half: 3/4 of 0.2.
    assert_close(noise.std(), torch.tensor(0.15), rtol=0.02, atol=0)
    flat = noise[0, 0].numpy()
    bent = np.abs(np.diff(flat, 2, axis=0)).mean(1)  # a straight line has no second difference
    straight = np.sort(bent)[:13]  # 14 of 29 places lie between points, fewer where the shift wrapped around
    assert straight.max() < 1e-6 < np.sort(bent)[16]


def test_coarse_noise_before_the_shift(monkeypatch):
    monkeypatch.setattr(torch, "randint", lambda high, shape, device=None: torch.zeros(shape, dtype=torch.int64))
    torch.manual_seed(0)
    noise = coarse_noise(torch.zeros(1000, 2, 31, 31), 16, 0.2)
    points = noise[:, :, ::2, ::2]
    assert_close(points.std(), torch.tensor(0.2), rtol=0.01, atol=0)
    assert_close(noise[:, :, 1::2, 1::2].std(), torch.tensor(0.1), rtol=0.01, atol=0)  # in the middle of four
    assert abs(torch.corrcoef(torch.stack([points[:, 0].flatten(), points[:, 1].flatten()]))[0, 1]) < 0.01  # channels


def test_the_shift_wraps_around_and_is_each_images_own():
    torch.manual_seed(0)
    shifted = coarse_noise(torch.zeros(64, 1, 16, 24), 2, 1.0)
    torch.manual_seed(0)
    grid = torch.randn(64, 1, 2, 2)
    still = torch.nn.functional.interpolate(grid, (16, 24), mode="bilinear", align_corners=True)
    assert_close(shifted.flatten(1).sort(1).values, still.flatten(1).sort(1).values)
    peaks = shifted.flatten(1).argmax(1) - still.flatten(1).argmax(1)
    assert len(set(peaks.tolist())) > 30


def test_the_learning_rate_swings_and_ends_at_zero():
    """Kascenas et al., authors' program: cosine annealing over 100 epochs of 32 batches, 2,100 epochs."""
    method = build("denoising-autoencoder", steps=67_200)
    assert [method.lr_scale(k * 3200, 67_200) for k in range(4)] == pytest.approx([1, 0, 1, 0], abs=1e-6)
    assert method.lr_scale(1600, 67_200) == pytest.approx(0.5)
    assert build("denoising-autoencoder", halves=1).lr_scale(100, 100) == pytest.approx(0)
    adam = method.phases()[0].optimisers["net"]
    assert (adam.defaults["amsgrad"], adam.defaults["weight_decay"]) == (True, 1e-5)


# Reading the map


def test_without_priors_the_map_is_the_common_one():
    x, r = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    for name in ("vae", "autoencoder"):
        assert torch.equal(build(name).anomaly_map(x, r), amplitude_map(x, r))


@pytest.mark.parametrize("sign", ["both", "bright", "dark"])
def test_signs_count_what_they_say(sign):
    x, r = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    r[..., 0, 0], r[..., 0, 1] = -0.5, 0.25  # too bright, too dark
    found = build("vae", sign=sign).anomaly_map(x, r)[0, 0, 0, :2].tolist()
    assert found == {"both": [0.25, 0.125], "bright": [0.25, 0], "dark": [0, 0.125]}[sign]


@pytest.mark.parametrize("size", [3, 5])
def test_the_median_is_scipys(size):
    x = torch.rand(3, 1, 16, 20, generator=torch.Generator().manual_seed(0))
    expected = np.stack([ndimage.median_filter(one[0].numpy(), size, mode="mirror") for one in x])
    assert np.array_equal(reconstruction.median_filter(x, size)[:, 0].numpy(), expected)


@pytest.mark.parametrize("pixels", [0, 1, 5, 12])
def test_steps_of_erosion_are_scipys(pixels):
    wide = np.ones((2, 70, 90), dtype=bool)
    wide[0, :5], wide[1, 40, 70], wide[1, :30, :30] = False, False, False  # a rim; a hole and a corner
    found = reconstruction.eroded(torch.from_numpy(wide)[:, None], pixels, "steps")[:, 0].numpy()
    for one, expected in zip(found, wide, strict=True):
        if pixels:  # beyond the border there may be body
            expected = ndimage.binary_erosion(expected, iterations=pixels, border_value=1)
        assert np.array_equal(one, expected)


def test_the_rim_of_the_body_does_not_count():
    inside = torch.zeros(1, 1, 20, 20, dtype=torch.bool)
    inside[..., 4:16, 4:] = True  # goes on beyond the right border
    expected = torch.zeros_like(inside)
    expected[..., 6:14, 6:] = True
    found = reconstruction.eroded(inside, 2, "square")
    corners = found ^ expected
    assert corners.sum() == 0
    inside[..., 10, 10] = False
    assert reconstruction.eroded(inside, 2, "square")[..., 8:13, 8:13].sum() == 24  # a single hole is forgiven
    assert torch.equal(reconstruction.eroded(inside, 0, "square"), inside)


def test_bodies():
    x = discs(2)
    dark = x.clone()
    dark[..., 16, 16] = -1  # a hole
    threshold, auto = reconstruction.body(dark, "threshold"), reconstruction.body(dark, "auto")
    assert torch.equal(threshold, dark > -0.98)
    assert not threshold[..., 16, 16].any()
    assert auto[..., 16, 16].all()
    assert reconstruction.body(x, "all").all()
    for erosion in ("steps", "square"):
        method = build("vae", body="threshold", erode=1, erosion=erosion)
        amount = method.anomaly_map(x, torch.full_like(x, 0.9))
        assert torch.equal(amount > 0, reconstruction.eroded(x > -0.98, 1, erosion))


def test_only_the_brightest_pixels_count_if_asked():
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    counted = build("vae", bright_quantile=0.9).anomaly_map(x, torch.full_like(x, -1.5)) > 0
    for one, kept in zip(x, counted, strict=True):
        assert torch.equal(kept, one >= np.quantile(one.numpy(), 0.9))


def test_the_score_is_the_mean_or_the_maximum_of_the_map():
    for name in METHODS:
        for score, of in (("mean", lambda m: m.mean((1, 2, 3))), ("max", lambda m: m.amax((1, 2, 3)))):
            with torch.no_grad():
                found = build(name, score=score).eval().predict(discs(2))
            assert_close(found.score, of(found.anomaly_map))


def test_the_floors_score_is_in_grey_levels_of_255():
    """The measuring stick's error: |x - r| of images in [0, 255]."""
    method, x = build("autoencoder").eval(), discs(2)
    with torch.no_grad():
        found = method.predict(x)
        grey = [((x + 1) * 127.5)[i] - ((found.healed + 1) * 127.5)[i] for i in range(2)]
    assert_close(found.score * 255, torch.stack([g.abs().mean() for g in grey]))


# Inference


def test_the_vae_answers_with_its_mean_code():
    method, x = build("vae").eval(), discs(2)
    with torch.no_grad():
        mu, _ = method.net.encode((x + 1) / 2)
        assert_close(method.heal(x), (2 * method.net.decode(mu) - 1).clamp(-1, 1))


def test_drawn_codes_are_the_same_for_every_image_and_call():
    method, x = build("vae", samples=2).eval(), discs(4)
    with torch.no_grad():
        torch.nn.init.constant_(method.net.log_sigma.bias, 0.5)
        first = method.heal(x)
        torch.rand(1)
        assert torch.equal(first, method.heal(x))
        assert_close(method.heal(x[2:3]), first[2:3], atol=1e-5, rtol=0)
        assert_close(method.heal(x[:1].expand(2, -1, -1, -1))[0], method.heal(x[:1].expand(2, -1, -1, -1))[1])
        assert not torch.allclose(first, VAE.heal(build("vae").eval(), x))
        single = build("vae", samples=1).eval()
        single.load_state_dict(method.state_dict())
        assert not torch.allclose(first, single.heal(x))


def test_a_denoised_background_stays_as_it_is():
    method, x = build("denoising-autoencoder").eval(), discs(2)
    with torch.no_grad():
        healed = method.heal(x)
    assert torch.equal(healed[x == -1], x[x == -1])
    assert not torch.equal(healed, x)


# Learning


@pytest.mark.parametrize(("name", "share"), [("vae", 0.7), ("autoencoder", 0.5), ("unified", 0.7)])
def test_it_learns_to_give_images_back(name, share):
    method, x = build(name, lr=5e-3, dropout=0.0), discs(4)
    found = train(method, x, 40)
    assert np.mean(found[-5:]) < share * np.mean(found[:5])


def test_it_learns_to_take_coarse_noise_away():
    method, x = build("denoising-autoencoder", lr=5e-3, halves=1, noise_sigma=0.3), discs(4)
    train(method, x, 60)
    torch.manual_seed(5)
    inside = x > -0.98
    noisy = (x + 2 * coarse_noise(x, 4, 0.3) * inside).clamp(-0.97, 1).where(inside, x)
    with torch.no_grad():
        healed = method.heal(noisy)
    assert (healed - x)[inside].square().mean() < 0.5 * (noisy - x)[inside].square().mean()


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_trains_and_answers_in_float32(name):
    method, x = build(name), discs(4)
    with torch.autocast("cpu", torch.bfloat16):
        found = train(method, x, 2)
        with torch.no_grad():
            prediction = method.predict(x)
    assert np.isfinite(found).all()
    assert prediction.score.dtype == prediction.anomaly_map.dtype == prediction.healed.dtype == torch.float32


# What is refused


@pytest.mark.parametrize(
    ("name", "size", "advice"), [("vae", 100, "96 or 104"), ("autoencoder", 33, "32"), ("unified", 8, "16")]
)
def test_sizes_that_cannot_work_are_refused_with_advice(name, size, advice):
    method = build(name)
    with pytest.raises(ConfigError, match=advice):
        METHODS[name](method.config, Spec(height=size, width=size))


def test_the_denoising_networks_sizes_are_multiples_of_eight():
    with pytest.raises(ConfigError, match="use --size 96 or 104"):
        DenoisingAutoencoder(DenoisingAutoencoder.Config(), Spec(height=100, width=100))
    with pytest.raises(ConfigError, match="more than pixels"):
        DenoisingAutoencoder(DenoisingAutoencoder.Config(noise_points=40, width=8), Spec(height=32, width=32))
    with pytest.raises(ConfigError, match="wider than the image"):
        VAE(VAE.Config(median=33), Spec(height=32, width=32))


@pytest.mark.parametrize(
    ("cls", "wrong"),
    [
        *((cls, w) for cls in (VAE, Autoencoder, DenoisingAutoencoder) for w in ({"median": 4}, {"erode": -1}, {"steps": 0})),
        (VAE, {"bright_quantile": 1.0}),
        (VAE, {"betas": (0.5, 1.5)}),
        (VAE, {"erode": 3}),
        (DenoisingAutoencoder, {"body": "all"}),
        (Autoencoder, {"blocks": -1}),
        (VAE, {"dropout": 1.0}),
        (VAE, {"lambda_kl": -1.0}),
        (VAE, {"samples": -1}),
        (VAE, {"width": 1}),
        (Autoencoder, {"network": "unified", "width": 1}),
        (Autoencoder, {"width": 0}),
        (DenoisingAutoencoder, {"halves": 2}),
        (DenoisingAutoencoder, {"noise_points": 1}),
        (DenoisingAutoencoder, {"noise_sigma": 0.0}),
    ],
)
def test_settings_that_cannot_work_are_refused(cls, wrong):
    with pytest.raises(ConfigError):
        cls.Config(**wrong)


# Facts


def test_fact_settings():
    v, d = recipes.get("vae"), recipes.get("denoising-autoencoder")
    m = v.method
    assert (m.lr, m.betas, m.code, m.lambda_kl, m.norm, m.samples) == (1e-4, (0.5, 0.999), 128, 1, "none", 0)
    assert (v.data.size, v.data.batch_size, m.sign, m.body, m.median) == (128, 8, "both", "all", 1)  # priors are off
    m = d.method
    assert (m.noise_sigma, m.noise_points, m.lr, m.weight_decay, m.steps) == (0.2, 16, 1e-4, 1e-5, 2100 * 32)
    assert (m.erode, m.erosion, m.median, d.data.size, d.data.batch_size, d.data.flip) == (2, "square", 5, 128, 16, False)
    lesions = recipes.get("vae-lesions").method
    assert (lesions.sign, lesions.body, lesions.erode, lesions.erosion) == ("bright", "threshold", 12, "steps")


@pytest.mark.parametrize(("channels", "count"), [(1, 8_402_304), (3, 8_414_848)])
def test_fact_parameters_of_the_measuring_stick(channels, count):
    """StarGAN's generator without label planes."""
    with torch.device("meta"):
        method = Autoencoder(Autoencoder.Config(), Spec(channels=channels))
    assert sum(p.numel() for p in method.parameters()) == count


@pytest.mark.parametrize(("side", "count", "scales"), [(64, 1_190_417, 1152), (128, 1_625_777, 1472), (256, 2_061_137, 1792)])
def test_fact_parameters_of_the_unified_autoencoder(side, count, scales):
    """Baur et al., authors' program: 1,191,569, 1,627,249 and 2,062,929 with scales in the place of norms."""
    with torch.device("meta"):
        method = Autoencoder(Autoencoder.Config(network="unified"), Spec(height=side, width=side))
        published = UnifiedAutoencoder(1, (side, side), norm="scale")
    assert sum(p.numel() for p in method.parameters()) == count
    assert sum(p.numel() for p in published.parameters()) == count + scales
