"""The parts of the loop, each against an independent computation."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from healmap import methods
from healmap.errors import TrainingError
from healmap.experiment import TrainingConfig
from healmap.methods.base import Losses, Optimisers
from healmap.training import rng
from healmap.training.average import WeightAverage
from healmap.training.device import autocast, build_fabric
from healmap.training.journal import Journal
from healmap.training.optimisers import FabricOptimisers
from healmap.training.window import Window


def fabric(precision: str = "32", **training: object) -> object:
    made = build_fabric(TrainingConfig(**training), "cpu", precision)  # type: ignore[arg-type]
    made.launch()
    return made


def small_method() -> methods.base.Method:
    cls = methods.get("stargan")
    torch.manual_seed(0)
    return cls(*cls.tiny())


def test_average_follows_its_formula() -> None:
    method = small_method()
    average, decay = WeightAverage(method, 0.5), 0.5
    name, weight = next((n, p) for n, p in method.named_parameters() if n.startswith("G."))
    wanted = weight.detach().clone()
    for n in range(6):
        with torch.no_grad():
            weight.add_(torch.randn_like(weight))
        average.update()
        d = min(decay, (1 + n) / (10 + n))
        wanted = d * wanted + (1 - d) * weight.detach()
    torch.testing.assert_close(average.tensors()[name], wanted)
    assert all(n.startswith("G.") for n in average.tensors()), "the critic is not averaged"


def test_average_is_put_in_and_taken_out_bit_for_bit() -> None:
    method = small_method()
    average = WeightAverage(method, 0.9)
    before = copy.deepcopy(method.state_dict())
    with torch.no_grad():
        for p in method.parameters():
            p.add_(1)
    raw = copy.deepcopy(method.state_dict())
    with average.applied():
        for name in average.tensors():
            assert torch.equal(method.state_dict()[name], before[name])
    assert all(torch.equal(a, b) for a, b in zip(method.state_dict().values(), raw.values(), strict=True))
    assert not WeightAverage(method, 0.0), "no decay, no average"


def test_random_numbers_go_on_where_they_were_captured() -> None:
    import random

    import numpy as np

    def draw() -> tuple:
        return (torch.rand(3).tolist(), np.random.rand(), np.random.randn(), random.random(), random.gauss(0, 1))

    rng.seed_all(5)
    draw()  # leaves half a pair of normal numbers behind in numpy and Python
    state = rng.capture()
    first = draw()
    rng.restore(state)
    assert draw() == first
    with rng.undisturbed():
        draw()
    rng.restore(state)
    assert draw() == first


@pytest.mark.parametrize("clip", [0.0, 0.1])
def test_the_trainers_update_is_the_plain_one(clip: float) -> None:
    torch.manual_seed(0)
    plain, ours = (nn.Linear(4, 3) for _ in range(2))
    ours.load_state_dict(plain.state_dict())
    x = torch.randn(8, 4)
    optimisers = (
        Optimisers({"net": torch.optim.Adam(plain.parameters())}, clip=clip),
        FabricOptimisers(fabric(), {"net": torch.optim.Adam(ours.parameters())}, clip=clip),
    )  # type: ignore[arg-type]
    for net, each in zip((plain, ours), optimisers, strict=True):
        each.scale_lr(0.5)
        for _ in range(3):
            each.descend("net", (net(part).square().sum() for part in x.split(4)))
        assert each.optimisers["net"].param_groups[0]["lr"] == 0.5e-3
    assert torch.equal(plain.weight, ours.weight)


def test_a_network_used_after_its_update_is_the_new_one() -> None:
    """Within one step a critic is updated, then judges: a cast of its old weights must not linger."""
    on = fabric("bf16")
    net = nn.Linear(4, 1, bias=False)
    optimisers = FabricOptimisers(on, {"net": torch.optim.SGD(net.parameters(), lr=1.0)})  # type: ignore[arg-type]
    x = torch.ones(2, 4)
    with autocast(on):  # type: ignore[arg-type]
        with torch.no_grad():
            net(x)  # a cast made without gradients must not be used with them
        out = net(x)
        assert out.dtype == torch.bfloat16
        optimisers.descend("net", out.float().sum())
        again = net(x)
    assert torch.equal(again.float(), (x.bfloat16() @ net.weight.bfloat16().mT).float())
    assert net.weight.grad is not None


def test_clipping_with_scaled_gradients() -> None:
    """fp16 scales the loss; the norm that is clipped is that of the true gradient."""

    class Scaler:
        def get_scale(self) -> float:
            return 8.0

    net = nn.Linear(1, 1, bias=False)
    on = fabric()
    on.strategy.precision.scaler = Scaler()  # type: ignore[attr-defined]
    optimisers = FabricOptimisers(on, {"net": torch.optim.SGD(net.parameters(), lr=0.0)}, clip=1.0)  # type: ignore[arg-type]
    optimisers.descend("net", net.weight.sum() * 8 * 100)  # scaled by 8, true gradient 100
    assert net.weight.grad is not None
    assert float(net.weight.grad) == pytest.approx(8.0)


def losses(**terms: float) -> Losses:
    return Losses({k: torch.tensor(v) for k, v in terms.items()})


def test_window_averages_each_term_over_its_own_steps() -> None:
    window = Window()
    window.add({"D": losses(a=1.0)})
    window.add({"D": losses(a=3.0), "G": losses(b=5.0)})
    state, sums = window.state_dict(), [s.clone() for s in window.sums()]
    window.add({"D": losses(a=5.0, c=7.0)})
    assert window.means() == {"D.a": 3.0, "G.b": 5.0, "D.c": 7.0}
    window.load_state_dict(state, sums, torch.device("cpu"))
    assert window.means() == {"D.a": 2.0, "G.b": 5.0}
    with pytest.raises(TrainingError, match=r"G\.b = inf"):
        window.add({"D": losses(a=1.0), "G": losses(b=float("inf"))})


def test_window_notices_late_where_it_must_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """On an accelerator a step does not look at its losses; the next log row does."""
    window = Window()
    window._sums[("D", "a")], window._counts[("D", "a")] = torch.tensor([float("nan")]), 2
    with pytest.raises(TrainingError, match=r"D\.a = nan"):
        window.means()


def test_journal_grows_columns_and_goes_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.start()
    journal.write("p", 5, 1.0, {"D.a": 0.5})
    state, text = journal.state_dict(), journal.path.read_text()
    journal.write("p", 10, 0.5, {"D.a": 0.25, "G.b": 1 / 3})
    assert journal.path.read_text() == "phase,step,lr,D.a,G.b\np,5,1,0.5,\np,10,0.5,0.25,0.333333\n"
    journal.load_state_dict(state)
    assert journal.path.read_text() == text


def test_optimisers_move_only_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, critic = nn.Linear(2, 2), nn.Linear(2, 1)
    optimisers = FabricOptimisers(fabric(), {"G": torch.optim.SGD(generator.parameters(), lr=1.0)})  # type: ignore[arg-type]
    loss: Tensor = critic(generator(torch.ones(1, 2))).sum()
    optimisers.descend("G", loss)
    assert critic.weight.grad is None
    assert generator.weight.grad is not None
