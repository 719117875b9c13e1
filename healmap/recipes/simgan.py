"""SimGAN (Shrivastava et al., CVPR 2017) and "feature loss + GAN" (Zhu et al., ICCV 2017, 5.1) as settings of Brainomaly.

No identity term on healthy images; instead the translated image stays near its input.
"""

from __future__ import annotations

from dataclasses import replace

from ..experiment import DataConfig, Experiment
from ..methods.brainomaly import Brainomaly
from .brainomaly import small as brainomaly_small

# SimGAN sums its losses over positions: 35 x 55 pixels, weight 0.5, against the 9 x 14 patches of its critic. Ours are means.
LAMBDA_SELF = 0.5 * (35 * 55) / (9 * 14)  # 7.6


def simgan() -> Experiment:
    """Log adversary, history buffer and L1 to the input, 64 px."""
    return Experiment(
        method_name="brainomaly",
        method=Brainomaly.Config(
            steps=10_000,  # ours: the paper stops by eye
            blocks=4,  # as we recall the paper: four residual blocks of width 64
            critic_layers=2,  # as we recall the paper: two halvings, local patches
            adversarial="log",  # paper
            lambda_gp=0.0,
            lambda_id=0.0,
            lambda_self=LAMBDA_SELF,  # community program: 0.5, of sums
            pool=512,  # ours: one batch of the community program
            n_critic=1,  # ours: nearest to two refiner steps for one of the discriminator
            lr=1e-3,  # community program
            decay="constant",
        ),
        data=DataConfig(size=64, batch_size=512),  # ours: 55 x 35 made square; batch: community program
        recipe="simgan",
    )


def small() -> Experiment:
    """SimGAN with 64 px and narrow networks, for a first look in minutes on two CPU cores."""
    base, ours = simgan(), brainomaly_small()
    method = replace(
        base.method,
        width=16,
        critic_width=32,
        critic_layers=4,  # ours: patches that see a lesion and what surrounds it
        pool=50,  # CycleGAN's
        lr=4e-4,  # ours: the community's 1e-3 belongs to a batch of 512
        steps=ours.method.steps,
    )
    return replace(base, method=method, data=replace(ours.data, batch_size=16), training=ours.training, recipe="simgan-small")


def feature_loss_gan() -> Experiment:
    """SimGAN whose distance is between VGG-16 features, 128 px; needs --set method.features=FILE."""
    base = simgan()
    method = replace(
        base.method,
        lambda_self=0.0,
        lambda_features=1.0,  # ours: neither paper nor program gives one
        critic_layers=3,  # CycleGAN's patches of 70 pixels
        pool=50,  # CycleGAN's
        lr=2e-4,  # CycleGAN's
    )
    data = replace(base.data, size=128, batch_size=16)  # ours
    return replace(base, method=method, data=data, recipe="feature-loss-gan")
