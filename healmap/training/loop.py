"""The loop: phases, steps, and what happens between steps (log, validation, pictures, checkpoints)."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch

from ..errors import HealError, Interrupted, TrainingError
from ..experiment import TrainingConfig
from ..methods.base import Losses, Method, Phase
from ..methods.processes import share_statistics
from . import rng
from .average import WeightAverage
from .checkpoint import first_non_finite
from .compiled import compile_networks, take_back
from .device import autocast
from .feed import Feed
from .journal import Journal
from .optimisers import FabricOptimisers
from .progress import Progress
from .signals import StopWish
from .window import Window

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from ..data.loader import Loader

GUARDED_STEPS = 20  # compiled networks may fail late: when first run backward, which some methods do every fifth step only
AGREE_EVERY = 10  # steps between agreements of data-parallel processes on time and on stopping; each makes them wait


@dataclass
class Position:
    """Where a run stands. step: within the phase; done: over all phases; totals: steps of each phase as last known."""

    phase: int = 0
    step: int = 0
    done: int = 0
    consumed: int = 0  # batches drawn in this phase
    elapsed: float = 0.0  # seconds of training, all sittings
    phase_elapsed: float = 0.0
    totals: list[int] = field(default_factory=list)


class Between(Protocol):
    """What a run does between steps, on its first process."""

    def validate(self, *, step: int, final: bool) -> dict[str, float]:
        """Figures of the method as it is now (averaged weights, ``eval()``); writes pictures and best weights."""

    def save(self, state: dict[str, Any], *, step: int) -> None:
        """Puts the state on disk."""


class Loop:
    """Trains ``method`` from :attr:`position` to the end.

    With ``minutes`` the number of steps is not given but estimated from the speed measured so far; phases share the time as
    they share the steps of the method's settings. Learning-rate schedules get the estimate as their total.
    """

    def __init__(
        self, method: Method, loader: Loader, training: TrainingConfig, fabric: Fabric, *, journal: Journal, progress: Progress
    ) -> None:
        self.method, self.loader, self.training, self.fabric = method, loader, training, fabric
        self.journal, self.progress = journal, progress
        self.phases: Sequence[Phase] = method.phases()
        self.average, self.window = WeightAverage(method, training.ema), Window()
        self.position = Position(totals=[len(loader) if p.steps is None else p.steps for p in self.phases])
        self._optimisers = [FabricOptimisers(fabric, p.optimisers, clip=training.clip) for p in self.phases]
        self._clock, self._images, self._seconds = 0.0, 0, 0.0  # of the log interval
        self._guarded = GUARDED_STEPS if training.compile and compile_networks(method) else 0

    @property
    def ready(self) -> bool:
        """Whether the method's predictions mean something where the run stands."""
        phase = self.position.phase
        return phase >= len(self.phases) or self.phases[phase].ready

    # State

    def state_dict(self) -> dict[str, Any]:
        """Everything the rest of the run depends on: plain data and tensors, these shared with the live ones.

        With several processes all must call it: each has its own random numbers and losses.
        """
        return {
            "position": {**vars(self.position), "totals": list(self.position.totals)},
            "method": self.method.state_dict(),
            "average": self.average.state_dict(),
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self._now().items()},
            "scaler": self.fabric.strategy.precision.state_dict(),
            "window": self.window.state_dict(),
            "journal": self.journal.state_dict(),
            "processes": self._everyones({"rng": rng.capture(), "sums": self.window.sums()}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.position = Position(**{**state["position"], "totals": list(state["position"]["totals"])})
        self.method.load_state_dict(state["method"])
        self.average.load_state_dict(state["average"])
        for name, optimiser in self._now().items():
            optimiser.load_state_dict(state["optimisers"][name])
        if state["scaler"]:
            self.fabric.strategy.precision.load_state_dict(state["scaler"])
        own = state["processes"][self.fabric.global_rank]
        self.window.load_state_dict(state["window"], own["sums"], self.fabric.device)
        if self.fabric.is_global_zero:
            self.journal.load_state_dict(state["journal"])
        rng.restore(own["rng"])

    def _now(self) -> dict[str, torch.optim.Optimizer]:
        """The present phase's optimisers (the last one's at the end): earlier ones are done, later ones still fresh."""
        return self._optimisers[min(self.position.phase, len(self.phases) - 1)].optimisers

    def _everyones(self, own: dict[str, Any]) -> list[dict[str, Any]]:
        """The tensors of every process, by rank."""
        if self.fabric.world_size == 1:
            return [own]
        every = self.fabric.all_gather(own)
        return [_take(every, rank) for rank in range(self.fabric.world_size)]

    def check_finite(self) -> None:
        """Raises TrainingError rather than let a broken state be validated or saved."""
        broken = first_non_finite({"weights": self.method.state_dict(), "average": self.average.tensors()})
        if broken:
            self.window.means()  # names the loss, if one tells
            raise TrainingError(f"'{broken}' is not finite", hint="the last checkpoint is kept; lower the learning rate")

    # Steps

    def run(self, between: Between, stop: StopWish) -> None:
        """Raises Interrupted when ``stop`` is wanted (state saved), TrainingError when a loss is not finite (nothing saved)."""
        if not self.position.done:
            self._save(between)  # from here on a killed run can be resumed
        while self.position.phase < len(self.phases):
            phase = self.position.phase
            self._run_phase(self.phases[phase], self._optimisers[phase], between, stop)
            now = self.position
            self.position = Position(phase=phase + 1, done=now.done, elapsed=now.elapsed, totals=now.totals)
            self._save(between)

    def _run_phase(self, phase: Phase, optimisers: FabricOptimisers, between: Between, stop: StopWish) -> None:
        self.method.train()
        self._images, self._seconds, self._clock = 0, 0.0, time.monotonic()
        feed = self._feed(phase)
        try:
            while self.position.step < self.position.totals[self.position.phase]:
                lr = phase.lr_scale(self.position.step, self.position.totals[self.position.phase])
                optimisers.scale_lr(lr)
                losses, feed = self._step(phase, feed, optimisers)
                self._after_step(phase, feed, losses, lr, between, stop)
        finally:
            feed.close()

    def _feed(self, phase: Phase) -> Feed:
        return Feed(
            self.loader,
            one_pass=phase.steps is None,
            consumed=self.position.consumed,
            device=self.fabric.device,
            channels_last=self.training.channels_last,
        )

    def _step(self, phase: Phase, feed: Feed, optimisers: FabricOptimisers) -> tuple[Mapping[str, Losses], Feed]:
        if not self._guarded:
            with autocast(self.fabric):
                return phase.step(feed, self.position.step, optimisers), feed
        self._guarded -= 1
        before = copy.deepcopy(self.state_dict())
        try:
            with autocast(self.fabric):
                return phase.step(feed, self.position.step, optimisers), feed
        except HealError:
            raise
        except Exception as error:  # compilers fail in many ways; an error of the step itself comes back uncompiled
            self._guarded = 0
            take_back(self.method)
            reason = str(error).strip().splitlines() or [""]
            self.progress.note(f"going on without torch.compile, which failed: {type(error).__name__}: {reason[0][:120]}")
            feed.close()
            self.load_state_dict(before)
            feed = self._feed(phase)
            optimisers.scale_lr(phase.lr_scale(self.position.step, self.position.totals[self.position.phase]))
            return self._step(phase, feed, optimisers)

    def _after_step(
        self, phase: Phase, feed: Feed, losses: Mapping[str, Losses], lr: float, between: Between, stop: StopWish
    ) -> None:
        p, settings = self.position, self.training
        share_statistics(self.method.named_buffers())  # before the average takes them in
        self.average.update()
        self.window.add(losses)
        p.step, p.done, p.consumed = p.step + 1, p.done + 1, feed.consumed
        self._images, feed.images = self._images + feed.images * self.fabric.world_size, 0
        self._seconds += self._tick()
        self._estimate(phase)
        total = p.totals[p.phase]
        last = p.step >= total
        rate = self._images / max(self._seconds, 1e-9)
        self.progress.step(phase.name, p.step, total, rate, (total - p.step) * p.phase_elapsed / p.step)
        row: dict[str, float] = {}
        if p.done % settings.log_every == 0 or last:
            row |= self.window.means(self._over_processes if self.fabric.world_size > 1 else None)
            self.window.clear()
            self.progress.losses(row)
            if self.fabric.is_global_zero:
                self.journal.timing(p.done, p.elapsed, rate)
            self._images, self._seconds = 0, 0.0
        if last:
            phase.finish()  # before the method is asked what it learnt
        final = last and p.phase == len(self.phases) - 1
        if (p.done % settings.sample_every == 0 and phase.ready) or final:
            row |= self._validate(between, final)
        if row and self.fabric.is_global_zero:
            self.journal.write(phase.name, p.done, lr, row)
        if last:
            return  # the phase's end saves
        wanted = self._stop_wanted(stop)
        if wanted or p.done % settings.save_every == 0:
            self._save(between)
        if wanted:
            raise Interrupted(f"stopped by {wanted} at step {p.done}, the state is saved", hint="go on with --resume")

    def _validate(self, between: Between, final: bool) -> dict[str, float]:
        found: dict[str, float] = {}
        if self.fabric.is_global_zero:
            self.check_finite()
            self.method.eval()
            with rng.undisturbed(), self.average.applied():
                found = between.validate(step=self.position.done, final=final)
            self.method.train()
        self.fabric.barrier()
        self._tick()
        return found

    def _save(self, between: Between) -> None:
        state = self.state_dict()
        if self.fabric.is_global_zero:
            self.check_finite()
            self.journal.flush()
            between.save(state, step=self.position.done)
            self.progress.saved(self.position.done)
        self.fabric.barrier()

    # Time

    def _tick(self) -> float:
        now = time.monotonic()
        passed, self._clock = now - self._clock, now
        self.position.elapsed += passed
        self.position.phase_elapsed += passed
        return passed

    def _estimate(self, phase: Phase) -> None:
        """With a time limit: the number of steps that fit, from the speed so far; it ends the phase when time is up."""
        if self.training.minutes is None or phase.steps is None:
            return
        p = self.position
        if self.fabric.world_size > 1:
            if p.step % AGREE_EVERY:
                return
            p.phase_elapsed = float(self.fabric.broadcast(p.phase_elapsed))
        timed = sum(x.steps for x in self.phases if x.steps is not None)
        budget = self.training.minutes * 60 * phase.steps / max(timed, 1)
        fits = math.floor(p.step * budget / max(p.phase_elapsed, 1e-9))
        p.totals[p.phase] = p.step if p.phase_elapsed >= budget else max(fits, p.step + 1)

    def _stop_wanted(self, stop: StopWish) -> str:
        if self.fabric.world_size == 1:
            return stop.wanted
        if self.position.step % AGREE_EVERY:
            return ""
        heard = torch.tensor(float(bool(stop.wanted)), device=self.fabric.device)
        return (stop.wanted or "a signal") if float(self._over_processes(heard)) else ""

    def _over_processes(self, values: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.fabric.all_reduce(values, reduce_op="mean"))


def _take(gathered: Any, rank: int) -> Any:
    if isinstance(gathered, dict):
        return {key: _take(value, rank) for key, value in gathered.items()}
    if isinstance(gathered, list):
        return [_take(value, rank) for value in gathered]
    return gathered[rank].cpu().clone()  # torch reads a generator's state from the start of the storage
