"""The numbers of CycleGAN's papers in its recipes."""

from __future__ import annotations

from healmap import recipes


def test_fact_cyclegan_settings():
    """Section 4: lambda 10, pool 50, batch 1, 2e-4, half of the steps constant; appendix: 9 blocks for 256 px, 6 for 128 px."""
    large, small = recipes.get("cyclegan"), recipes.get("cyclegan-128")
    for e in (large, small):
        m = e.method
        assert (m.lambda_A, m.lambda_B, m.lambda_identity, m.pool, m.lr, m.decay_share) == (10, 10, 0.5, 50, 2e-4, 0.5)
        assert (m.width, m.critic_width, m.critic_layers, m.adversarial, e.data.batch_size) == (64, 64, 3, "least-squares", 1)
    assert (large.data.size, large.method.blocks) == (256, 9)
    assert (small.data.size, small.method.blocks) == (128, 6)


def test_fact_third_party_settings():
    """Dice and cross-entropy, no identity loss; the weights 0.5 come with the order."""
    m = recipes.get("cyclegan-shape-third-party").method
    assert (m.order, m.dice, m.lambda_identity, m.gamma, m.lambda_synthetic) == ("third-party", True, 0, None, None)


def test_modalities_stand_for_the_two_sets():
    for name in ("cyclegan-modality", "cyclegan-modality-small", "cyclegan-shape-modality", "cyclegan-shape-modality-small"):
        data = recipes.get(name).data
        assert (data.domain_column, data.domains, data.normalisation) == ("modality", ("flair", "t1c"), "foreground-median")
