"""One training run, from settings and data to a run folder."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..config import to_plain
from ..experiment import Experiment
from ..io.atomic import remove_stale, write_json
from ..methods import get, weights
from ..methods.base import Method
from . import checkpoint, rng
from .allocator import freed_memory_kept
from .device import autocast, build_fabric, choose_device, choose_precision, is_first_process, process_settings
from .folder import compare, judge, warn_of_changes
from .journal import Journal
from .loop import Loop
from .manifest import git_revision, machine, peak_mb, versions
from .progress import make_progress
from .samples import AMPLITUDE_SCALE, write_grid
from .signals import StopWish
from .validate import Validator, by_label, picture_rows, spread

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from .progress import Progress

PICTURES_OF_EACH = 4
_MEASURES = {
    "val.auroc": "AUROC (to three decimals, then pixel AP)",
    "val.aucp": "AUCp (known healthy against mixed images, no diseased label used)",
}


def train_run(
    experiment: Experiment,
    train: Dataset,
    val: Dataset | None,
    out: Path,
    *,
    resume: bool = False,
    notes: Sequence[str] | None = None,
    quiet: bool = False,
) -> Path:
    """Trains a method and writes its run folder; see ``docs/architecture.md`` for the files.

    Args:
        val: chooses the best weights and shows in pictures and log; None: pictures show training images, best = last.
        out: new or empty. With ``resume``: an interrupted run, which goes on exactly where its last checkpoint stands (on a CPU
            with the same versions and threads, bit for bit), or a folder where one has not begun yet.
        notes: facts for the manifest, such as leaks that were allowed.
        quiet: no progress display.

    Raises:
        ConfigError: a setting cannot work here (device, image size).
        UsageError: the folder is not empty, or the data lack what the method needs.
        CheckpointError: nothing sound to resume, or other settings or data than the run began with.
        Interrupted: SIGINT or SIGTERM came; the state is saved.
        TrainingError, WriteError: a loss is not finite; the disk is full. The last checkpoint is kept.
    """
    from ..data.loader import Loader

    out, training = Path(out), experiment.training
    device = choose_device(training.device)
    if is_first_process():
        judge(out, resume=resume)
    state = checkpoint.load(out) if resume and checkpoint.exists(out) else None
    settings = to_plain(experiment)
    data = {"train": train.fingerprint, "val": val.fingerprint if val is not None else ""}
    if state is not None:
        compare(state, settings, data)
        if state["finished"]:
            make_progress(quiet=quiet).note(f"{out} is finished: {state['loop']['position']['done']} steps")
            return out
    precision = state["conditions"]["precision"] if state is not None else choose_precision(training.precision, device)
    fabric = build_fabric(training, device, precision)
    fabric.launch()
    memory = freed_memory_kept() if device == "cpu" else nullcontext()
    with process_settings(training), memory, make_progress(quiet=quiet or not fabric.is_global_zero) as progress:
        loader = Loader(
            train,
            get(experiment.method_name).needs,
            batch_size=experiment.data.batch_size,
            seed=training.seed,
            flip=experiment.data.flip,
            healthy_share=experiment.data.healthy_share,
            rank=fabric.global_rank,
            world=fabric.world_size,
            workers=experiment.data.workers,
        )
        method = _build(experiment, train, fabric.device)
        images, steps = len(loader.a), experiment.method.steps
        remarks = method.check_data(min(images, steps * experiment.data.batch_size) if steps else images)
        for remark in remarks:
            progress.note(remark)
        if fabric.global_rank:
            rng.seed_all(training.seed + fabric.global_rank)  # same weights, other random numbers
        conditions = {
            "versions": versions(),
            "threads": torch.get_num_threads(),
            "device": device,
            "precision": precision,
            "processes": fabric.world_size,
        }
        journal = Journal(out, tensorboard=training.tensorboard and fabric.is_global_zero)
        loop = Loop(method, loader, training, fabric, journal=journal, progress=progress)
        run = _Run(experiment, train, val, out, loop, settings, data, conditions, progress, [*(notes or []), *remarks])
        if fabric.is_global_zero:
            run.open(state)
        fabric.barrier()
        if state is not None:
            loop.load_state_dict(state["loop"])
        with StopWish() as stop:
            try:
                loop.run(run, stop)
            finally:
                journal.close()
        if fabric.is_global_zero:
            run.close()
        fabric.barrier()
    return out


def _build(experiment: Experiment, train: Dataset, device: torch.device) -> Method:
    rng.seed_all(experiment.training.seed)
    method = get(experiment.method_name)(experiment.method, train.spec).to(device)
    if experiment.training.channels_last:
        method.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return method


class _Run:
    """The files of a run folder, written between steps. First process only."""

    def __init__(
        self,
        experiment: Experiment,
        train: Dataset,
        val: Dataset | None,
        out: Path,
        loop: Loop,
        settings: dict[str, Any],
        data: dict[str, str],
        conditions: dict[str, Any],
        progress: Progress,
        notes: Sequence[str] | None,
    ) -> None:
        self.experiment, self.train, self.val, self.out, self.loop = experiment, train, val, out, loop
        self.settings, self.data, self.conditions, self.progress = settings, data, conditions, progress
        self.notes = list(notes or [])
        self.best: dict[str, Any] = {}  # step, figures and rank of the best weights so far
        self.scale = 0.0  # of the maps in pictures; set by the first grid
        self.figures: dict[str, float] = {}  # of the last validation
        batch = experiment.data.batch_size
        self.validator = (
            None
            if val is None
            else Validator(
                val,
                limit=experiment.training.validation_limit,
                batch_size=batch,
                device=loop.fabric.device,
                precision=self._precision,
                rule=experiment.training.select,
                healthy_share=experiment.data.healthy_share,
                seed=experiment.training.seed,
                diseased_only=type(loop.method).class_at_inference,
            )
        )
        self.shown = val if val is not None else train
        healthy, diseased = by_label(self.shown)
        shown = [diseased] if type(loop.method).class_at_inference else [healthy, diseased]
        self.columns = [i for group in shown for i in spread(group, PICTURES_OF_EACH)]

    def _precision(self) -> AbstractContextManager[None]:
        return autocast(self.loop.fabric)

    # Begin and end

    def open(self, state: dict[str, Any] | None) -> None:
        self.out.mkdir(parents=True, exist_ok=True)
        for folder in (self.out, self.out / "weights", self.out / "samples"):
            remove_stale(folder)
        write_json(self.out / "experiment.json", self.settings)
        if state is None:
            self.loop.journal.start()
            write_json(self.out / "manifest.json", self._manifest())
            return
        self.best, self.scale, self.figures = state["best"], state["scale"], state["figures"]
        changed = warn_of_changes(state["conditions"], self.conditions)
        done = state["loop"]["position"]["done"]
        self.progress.note(f"resumed at step {done}")
        manifest = self._saved_manifest()
        manifest.setdefault("resumed", []).append({"at": _now(), "step": done, "changed": changed})
        write_json(self.out / "manifest.json", manifest)

    def close(self) -> None:
        p, manifest = self.loop.position, self._saved_manifest()
        manifest["finished"] = {
            "at": _now(),
            "steps": p.done,
            "seconds": round(p.elapsed, 1),
            "peak_mb": peak_mb(),  # of the whole process, data included; of a resumed run: of its last sitting
            "totals": p.totals,
            "best_step": self.best.get("step", p.done),
            "figures": self.figures,
        }
        write_json(self.out / "manifest.json", manifest)

    def _manifest(self) -> dict[str, Any]:
        from ..data.dataset import manifest

        return {
            "run": self.experiment.recipe or self.experiment.method_name, "begun": _now(),
            "data": {"train": manifest(self.train), "val": manifest(self.val) if self.val is not None else None,
                     "used": self.loop.loader.describe()},
            "seed": self.experiment.training.seed, **self.conditions, "machine": machine(), "git": git_revision(),
            "notes": self.notes,
        }  # fmt: skip

    def _saved_manifest(self) -> dict[str, Any]:
        try:
            return json.loads((self.out / "manifest.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return self._manifest()

    # Between steps

    def validate(self, *, step: int, final: bool) -> dict[str, float]:
        rank = None
        if self.validator is not None:
            self.figures, rank = self.validator.figures(self.loop.method, everything=final)
        self._pictures(step)
        # Without a rank the last weights are the best; pairs compare AUROC first.
        if rank is not None and self._beats(rank):
            self.best = {"step": step, "figures": dict(self.figures), "rank": list(rank)}
            self._weights("best", step)
        return self.figures

    def _beats(self, rank: tuple[float, float]) -> bool:
        if not self.best:
            return True
        before = tuple(self.best["rank"])
        return rank > before or (rank == before and not (self.validator is not None and self.validator.first_of_equals))

    def save(self, state: dict[str, Any], *, step: int) -> None:
        if self.loop.ready:  # weights that have no answers yet are of no use to anyone, and may be large
            with self.loop.average.applied():
                self._weights("last", step)
                if not self.best:
                    self._weights("best", step)
        checkpoint.save(self.out, {
            "settings": json.dumps(self.settings), "data": self.data, "conditions": self.conditions, "loop": state,
            "best": self.best, "scale": self.scale, "figures": self.figures,
            "finished": self.loop.position.phase >= len(self.loop.phases),
        })  # fmt: skip

    def _weights(self, name: str, step: int) -> None:
        """The method's weights as they are now; callers apply the averages."""
        rule = "last weights"
        if self.best and self.validator is not None:
            rule = f"highest {_MEASURES[self.validator.name]} on the validation sample"
        weights.save(self.loop.method, self.out / "weights" / f"{name}.safetensors", {
            "name": name, "recipe": self.experiment.recipe, "step": step, "averaged": bool(self.loop.average),
            "chosen": "last weights" if name == "last" else rule, "figures": self.figures,
            "preprocessing": self.train.preprocessing.to_plain(), "data": self.settings["data"],
            "detection": self.settings["detection"], "train_fingerprint": self.data["train"],
            "precision": self.conditions["precision"], "versions": self.conditions["versions"],
        })  # fmt: skip

    def _pictures(self, step: int) -> None:
        if not self.columns:
            return
        with torch.no_grad():
            rows = picture_rows(self.loop.method, self.shown, self.columns, self.loop.fabric.device, self._precision)
        if not self.scale:
            healing = self.loop.method.heals or "map" not in rows
            self.scale = AMPLITUDE_SCALE if healing else max(float(rows["map"].max()), 1e-6)
        write_grid(
            self.out / "samples" / f"step_{step:08d}.png",
            rows,
            [self.shown.items[i].label for i in self.columns],
            scale=self.scale,
        )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
