"""Training cycles of the published programs, for ``train_step.py`` to time beside ours. Nothing of them is in this repository.

Which program a folder holds is told by its files:

* ``solver.py`` and ``model.py`` (StarGAN, HealthyGAN): its own ``Solver.train`` is driven, a cycle at a time.
* ``model/generator_discrminator.py`` (DeScarGAN): its networks. Its loop needs a graphics processor and a plot server, so the
  step stands here.
* ``networks.py`` (CycleGAN; its authors' own, or that of their CUT without anti-aliasing, which is the same layer for layer):
  its networks. Its loop is spread over many files, so the step stands here.

The steps written here compute what the programs compute, in their order: separate passes, gradients for all weights that their
``backward`` reaches, plain optimisers. Logging is left out. All compute in fp32.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import io
import itertools
import random
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEVER = 10**9  # a step that a cycle does not reach
STUBS = ("torchvision", "torchvision.utils", "tqdm", "pandas")  # imported by published solvers, not needed for a step


@dataclass(frozen=True)
class Setting:
    """What all contestants have in common."""

    size: int
    width: int  # channels of the first layer; 0: the method's own default
    batch: int
    channels: int
    device: str
    now: Callable[[], float]  # seconds, when all work given so far is done

    def images(self) -> Tensor:
        """(N, C, H, W) in [-1, 1]."""
        return torch.rand(self.batch, self.channels, self.size, self.size, device=self.device) * 2 - 1

    def timed(self, work: Callable[[], object]) -> float:
        start = self.now()
        work()
        return self.now() - start


@dataclass
class Contestant:
    """Something whose cycle can be run and timed. ``cycle`` returns the seconds it took."""

    program: str
    method: str
    precision: str
    width: int | None
    images: int  # per cycle; where a method takes two sets, an image of each counts as one
    cycle: Callable[[], float]


def published(folder: Path, setting: Setting) -> Contestant:
    """The program in ``folder``."""
    kinds = {"solver.py": from_solver, "model/generator_discrminator.py": descargan, "networks.py": cyclegan}
    for file, build in kinds.items():
        if (folder / file).is_file():
            torch.manual_seed(0)
            return build(folder, setting)
    raise SystemExit(f"{folder}: none of {', '.join(kinds)} there")


# StarGAN and HealthyGAN


class Feed:
    """A data loader for a published solver: the same batch for ever; notes when the first step of a cycle begins."""

    def __init__(self, batch: tuple[Tensor, Tensor], now: Callable[[], float]) -> None:
        self.batch, self.now, self.asked, self.began = batch, now, 0, 0.0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.asked = 0
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        self.asked += 1
        if self.asked == 2:  # the first batch is kept for the solver's sample pictures
            self.began = self.now()
        return self.batch


def from_solver(folder: Path, setting: Setting) -> Contestant:
    """The program's own training loop, driven for one cycle at a time."""
    solver_class, width = load_solver(folder), setting.width or 64
    star = "celeba_loader" in inspect.signature(solver_class.__init__).parameters
    name, n_critic = ("stargan", 5) if star else ("healthygan", 2)
    label = (torch.arange(setting.batch) % 2).float()[:, None]
    feed = Feed((setting.images().cpu(), label if star else setting.images().cpu()), setting.now)
    config = types.SimpleNamespace(
        dataset="CelebA" if star else "Covid", image_size=setting.size, batch_size=setting.batch, selected_attrs=["diseased"],
        g_conv_dim=width, d_conv_dim=width, g_repeat_num=6, d_repeat_num=6, c_dim=1, c2_dim=0,
        lambda_cls=1, lambda_rec=10 if star else 1, lambda_gp=10, lambda_id=1,
        lambda_mask=0.1, lambda_msmall=1, lambda_mzerone=1, mask_loss_mode="sum",
        num_iters=n_critic, num_iters_decay=0, n_critic=n_critic, g_lr=1e-4, d_lr=1e-4, beta1=0.5, beta2=0.999,
        resume_iters=None, test_iters=None, use_tensorboard=False,
        log_dir="", sample_dir="", model_save_dir="", result_dir="",
        log_step=NEVER, sample_step=NEVER, model_save_step=NEVER, lr_update_step=NEVER,
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        solver = solver_class(feed, None, config) if star else solver_class(feed, config)

    def cycle() -> float:
        with contextlib.redirect_stdout(io.StringIO()):
            solver.train()
        return setting.now() - feed.began

    return Contestant(f"published ({folder.name})", name, "fp32", width, n_critic * setting.batch, cycle)


def load_solver(folder: Path) -> Any:
    """The class Solver of FOLDER/solver.py. Modules it imports but a step does not use are replaced while it is imported."""
    if not (folder / "model.py").is_file():
        raise SystemExit(f"{folder}: no model.py beside solver.py")
    before = set(sys.modules)
    absent = [name for name in STUBS if importlib.util.find_spec(name.split(".")[0]) is None]
    for name in absent:
        sys.modules[name] = types.ModuleType(name)
        for word in ("save_image", "tqdm"):
            setattr(sys.modules[name], word, None)
    sys.path.insert(0, str(folder.resolve()))
    try:
        return importlib.import_module("solver").Solver
    finally:
        sys.path.pop(0)
        for name in {*absent, "solver", "model", "logger"} & (set(sys.modules) - before):
            del sys.modules[name]


def load_networks(file: Path, siblings: tuple[str, ...] = ()) -> Any:
    """A module of networks by itself. ``siblings``: what it imports from beside itself, and does not need here."""
    package, absent = types.ModuleType("published"), {f"published.{name}": _Anything(name) for name in siblings}
    package.__path__ = []
    sys.modules |= {"published": package, **absent}
    try:
        spec = importlib.util.spec_from_file_location(f"published.{file.stem}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        for name in ("published", *absent):
            del sys.modules[name]


class _Anything(types.ModuleType):
    def __getattr__(self, name: str) -> None:
        return None


def adams(lr: float, *networks: list[nn.Module]) -> list[torch.optim.Adam]:
    """An Adam for each list of networks, as it comes."""
    return [torch.optim.Adam(itertools.chain(*(n.parameters() for n in some)), lr, (0.5, 0.999)) for some in networks]


# DeScarGAN

CLASSES = (0, 1)  # healthy, diseased


def descargan(folder: Path, setting: Setting) -> Contestant:
    """Wolleb et al., MICCAI 2020: n_critic = 5, the losses of the released program. Its half-precision casts are left out."""
    if setting.size != 256:
        raise SystemExit(f"{folder}: DeScarGAN's discriminator takes images of 256 px only: add --size 256")
    module, width = load_networks(folder / "model" / "generator_discrminator.py"), setting.width or 64
    if width != 64:
        raise SystemExit(f"{folder}: DeScarGAN's discriminator has its width built in: add --width 0")
    with where_it_is(setting.device):
        G = module.Generator(setting.channels, width).to(setting.device).train()
        D = module.Discriminator(setting.channels).to(setting.device).train()
    adam_g, adam_d = adams(1e-4, [G], [D])
    x, label = setting.images(), torch.arange(setting.batch, device=setting.device) % 2
    which = [torch.full((1,), c, device=setting.device) for c in CLASSES]  # how D is told a class
    code = [F.one_hot(torch.full_like(label, c), 2).float() for c in CLASSES]  # and G
    every = [torch.full_like(label, c) for c in CLASSES]
    of_class = [(label == c).nonzero()[:, 0] for c in CLASSES]
    share = [len(members) / 10 for members in of_class]

    def penalty(z: Tensor, y: Tensor, c: int, alpha: Tensor) -> Tensor:
        between = (alpha * z + (1 - alpha) * y).detach().requires_grad_()
        source = D(between, which[c])[0]
        (gradient,) = torch.autograd.grad(source, between, torch.ones_like(source), create_graph=True)
        return (gradient.flatten(1).square().sum(1).sqrt() - 1).square().mean()

    def critic(z: Tensor, e: Tensor) -> None:
        loss: Any = 0.0
        for c in CLASSES:
            source, logits = D(z[of_class[c]], which[c])
            loss = loss + share[c] * (5 * F.cross_entropy(logits, every[c][: len(logits)]) - 20 * source.mean())
        D(z, which[0])  # for the accuracy that it prints
        fakes = [G(z, code[c]) + e for c in CLASSES]
        for c in CLASSES:
            loss = loss + 20 * share[c] * D(fakes[c].detach(), which[c])[0].mean()
        alpha = torch.rand(len(z), 1, 1, 1, device=z.device)
        loss = loss + 10 * (penalty(z, fakes[1], 1, alpha) + penalty(z, fakes[0], 0, alpha))
        descend(loss, adam_d, D)

    def generator(z: Tensor, e: Tensor) -> None:
        fakes = [G(z, code[c]) + e for c in CLASSES]
        loss: Any = 0.0
        for c in CLASSES:
            source, logits = D(fakes[c], which[c])
            loss = loss + F.cross_entropy(logits, every[c]) - source.mean()
        for c in CLASSES:
            mine = of_class[c]
            back = G(fakes[1 - c][mine], code[c][: len(mine)]) + e[mine]
            loss = loss + 50 * F.mse_loss(z[mine], fakes[c][mine]) + 50 * F.mse_loss(z[mine], back)
        descend(loss, adam_g, G)

    def descend(loss: Tensor, optimiser: torch.optim.Adam, network: nn.Module) -> None:
        adam_g.zero_grad()
        adam_d.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10)
        optimiser.step()

    def cycle() -> None:
        for k in range(5):
            e = 0.05 * torch.rand_like(x)
            z = (x + e).requires_grad_()  # which it asks for
            critic(z, e)
            if k == 4:
                generator(z, e)

    return Contestant(f"published ({folder.name})", "descargan", "fp32", width, 5 * setting.batch, lambda: setting.timed(cycle))


@contextlib.contextmanager
def where_it_is(device: str) -> Iterator[None]:
    """While open, ``.cuda()`` leaves a tensor where it is, unless there is a graphics processor to work on."""
    before = Tensor.cuda
    if device == "cpu":
        Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    try:
        yield
    finally:
        Tensor.cuda = before  # type: ignore[method-assign]


# CycleGAN


def cyclegan(folder: Path, setting: Setting) -> Contestant:
    """Zhu et al., ICCV 2017: both generators, then both critics; 9 residual blocks, least squares, lambda 10, 10 and 0.5."""
    module, width = load_networks(folder / "networks.py", siblings=("stylegan_networks",)), setting.width or 64
    norm, channels = module.get_norm_layer("instance"), setting.channels

    def plain(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
        """Without what CUT has added."""
        switches = {k for k in ("no_antialias", "no_antialias_up") if k in inspect.signature(network).parameters}
        return functools.partial(network, norm_layer=norm, **dict.fromkeys(switches, True))

    generator = functools.partial(plain(module.ResnetGenerator), channels, channels, width, n_blocks=9)
    critic = functools.partial(plain(module.NLayerDiscriminator), channels, width, n_layers=3)
    G_A, G_B, D_A, D_B = networks = [build().to(setting.device) for build in (generator, generator, critic, critic)]
    with contextlib.redirect_stdout(io.StringIO()):
        for network in networks:
            module.init_weights(network)
    adam_g, adam_d = adams(2e-4, [G_A, G_B], [D_A, D_B])
    real_a, real_b = setting.images(), setting.images()
    pool_a, pool_b = Pool(), Pool()

    def gan(source: Tensor, target: float) -> Tensor:
        return F.mse_loss(source, torch.full_like(source, target))

    def step() -> None:
        fake_b = G_A(real_a)
        back_a = G_B(fake_b)
        fake_a = G_B(real_b)
        back_b = G_A(fake_a)
        for network in (D_A, D_B):
            network.requires_grad_(False)
        adam_g.zero_grad()
        identity = 5 * (F.l1_loss(G_A(real_b), real_b) + F.l1_loss(G_B(real_a), real_a))
        cycle = 10 * (F.l1_loss(back_a, real_a) + F.l1_loss(back_b, real_b))
        (gan(D_A(fake_b), 1) + gan(D_B(fake_a), 1) + cycle + identity).backward()
        adam_g.step()
        for network in (D_A, D_B):
            network.requires_grad_(True)
        adam_d.zero_grad()
        for D, real, fake in ((D_A, real_b, pool_b(fake_b)), (D_B, real_a, pool_a(fake_a))):
            (0.5 * (gan(D(real), 1) + gan(D(fake), 0))).backward()
        adam_d.step()

    return Contestant(f"published ({folder.name})", "cyclegan", "fp32", width, setting.batch, lambda: setting.timed(step))


class Pool:
    """50 translations; until it is full all are stored and shown, then each is exchanged for a stored one half of the time."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        shown = []
        for image in images.detach().split(1):
            if len(self.kept) < 50:
                self.kept.append(image)
            elif random.random() < 0.5:
                k = random.randrange(50)
                self.kept[k], image = image, self.kept[k]
            shown.append(image)
        return torch.cat(shown)
