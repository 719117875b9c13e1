"""Every recipe builds, round-trips through JSON, and holds its paper's numbers."""

from __future__ import annotations

import json

import pytest

from healmap import methods, recipes
from healmap.config import to_plain
from healmap.errors import ConfigError
from healmap.recipes.saved import experiment_from_plain

# Methods of papers that are settings of another's: name -> the method that serves.
SERVED_BY = {"simgan": "brainomaly", "simgan-small": "brainomaly", "feature-loss-gan": "brainomaly"}


@pytest.mark.parametrize("name", recipes.names())
def test_recipe_builds_and_survives_json(name):
    experiment = recipes.get(name)
    assert experiment.recipe == name
    assert name.startswith(experiment.method_name) or SERVED_BY[name] == experiment.method_name
    assert isinstance(experiment.method, methods.get(experiment.method_name).Config)
    assert experiment_from_plain(json.loads(json.dumps(to_plain(experiment)))) == experiment
    assert recipes.describe(name).endswith((".", ")"))
    assert "\n" not in recipes.describe(name)


def test_every_method_name_is_a_recipe():
    assert set(methods.names()) <= set(recipes.names())


def test_unknown_names_get_the_nearest():
    with pytest.raises(ConfigError, match="fixed-point-gan-brats2013"):
        recipes.get("fixed-point-gan-brats2012")


def test_fact_fixed_point_gan_settings():
    """Appendix: lambda_id 10 for CelebA, 0.1 for BRATS, 1 for PE; 200,000 iterations, BRATS 300,000."""
    found = {n: recipes.get(f"fixed-point-gan-{n}") for n in ("celeba", "brats2013", "pe")}
    assert {n: e.method.lambda_id for n, e in found.items()} == {"celeba": 10, "brats2013": 0.1, "pe": 1}
    assert {n: e.method.steps for n, e in found.items()} == {"celeba": 200_000, "brats2013": 300_000, "pe": 200_000}
    assert {n: e.data.size for n, e in found.items()} == {"celeba": 128, "brats2013": 256, "pe": 128}
    for e in found.values():
        assert (e.method.lambda_domain, e.method.lambda_cyc, e.method.lambda_gp, e.method.lr) == (1, 10, 10, 1e-4)
    assert found["brats2013"].detection.min_area == 10
    assert found["brats2013"].method.score == "max"


def test_fact_ablation_of_table_4():
    switches = {n: recipes.get(f"fixed-point-gan-brats2013{n}").method for n in ("", "-stargan", "-delta", "-fixed-point")}
    found = {n: (m.delta, m.fixed_point) for n, m in switches.items()}
    assert found == {"": (True, True), "-stargan": (False, False), "-delta": (True, False), "-fixed-point": (False, True)}


def test_fact_healthygan_settings():
    """Appendix A; A2B-GAN section 4.4: lambda_fs 0.001 for the simulated anomalies."""
    base = recipes.get("healthygan").method
    weights = (base.lambda_gp, base.lambda_id, base.lambda_rec, base.lambda_f, base.lambda_fz, base.lambda_fs)
    assert weights == (10, 1, 1, 0.1, 1, 1)
    assert (base.steps, base.lr, base.n_critic, base.steps * base.decay_share) == (400_000, 1e-4, 2, 100_000)
    sizes = {
        n: (recipes.get(f"healthygan-{n}").data.size, recipes.get(f"healthygan-{n}").data.batch_size)
        for n in ("covid", "xray14", "migraine", "a2b-covid", "a2b-cardiomegaly", "a2b-simulated")
    }
    assert sizes == {
        "covid": (256, 16),
        "xray14": (128, 32),
        "migraine": (256, 16),
        "a2b-covid": (256, 16),
        "a2b-cardiomegaly": (256, 16),
        "a2b-simulated": (128, 16),
    }
    assert recipes.get("healthygan-a2b-simulated").method.lambda_fs == 0.001


def test_fact_stargan_settings():
    method = recipes.get("stargan-celeba").method
    assert (method.lambda_cls, method.lambda_rec, method.lambda_gp, method.n_critic, method.steps) == (1, 10, 10, 5, 200_000)
    assert method.decay == "linear"
    assert len(recipes.get("stargan-celeba").data.attributes) == 5


def test_fact_brainomaly_settings():
    """Authors' program: weights 10 and 1, two critic steps, 400,000 of batch 16 at 192 px; by AUCp of every 10,000."""
    e = recipes.get("brainomaly")
    m = e.method
    assert (m.lambda_gp, m.lambda_id, m.n_critic, m.lr, m.betas, m.steps) == (10, 1, 2, 1e-4, (0.5, 0.999), 400_000)
    assert (m.adversarial, m.lambda_self, m.lambda_features, m.pool, m.score) == ("wasserstein", 0, 0, 0, "mean")
    assert (e.data.size, e.data.batch_size, e.data.flip) == (192, 16, True)
    assert (e.training.select, e.training.sample_every) == ("aucp", 10_000)


def test_fact_simgan_settings():
    """An adversary and the distance from the input, nothing else; 0.5 of a sum over 1,925 pixels against 126 patches."""
    m, f = recipes.get("simgan").method, recipes.get("feature-loss-gan").method
    assert (m.adversarial, m.lambda_gp, m.lambda_id, m.lambda_features, m.lr) == ("log", 0, 0, 0, 1e-3)
    assert m.lambda_self == pytest.approx(0.5 * 1925 / 126)
    assert m.pool > 0
    assert (f.adversarial, f.lambda_gp, f.lambda_id, f.lambda_self) == ("log", 0, 0, 0)
    assert f.lambda_features > 0
    assert f.features == ""


def test_fact_va_gan_settings():
    """Authors' configuration: weights 10 and 100, betas 0 and 0.9, batch 32 at 112 px; 1e-4 there, 1e-3 in the paper."""
    e = recipes.get("va-gan")
    m = e.method
    assert (m.lambda_gp, m.lambda_map, m.betas, m.lr, m.tanh, m.penalty) == (10, 100, (0, 0.9), 1e-3, True, "whole")
    assert (m.n_critic, m.n_critic_much, m.much_first, m.much_every) == (5, 100, 25, 100)
    assert (e.data.size, e.data.batch_size) == (112, 32)
    assert recipes.get("va-gan-synthetic").method.lr == 1e-4


def test_fact_pix2pix_settings():
    e = recipes.get("pix2pix")
    m = e.method
    assert (m.lambda_l1, m.lr, m.betas, m.dropout, m.levels, m.width) == (100, 2e-4, (0.5, 0.999), 0.5, 8, 64)
    assert (m.decay, m.decay_share) == ("linear", 0.5)
    assert (e.data.size, e.data.batch_size) == (256, 1)
