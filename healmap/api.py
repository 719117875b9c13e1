"""The library's front door: one function per verb of the command line, same names, same defaults."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .config import override
from .errors import ConfigError, UsageError
from .experiment import Experiment

if TYPE_CHECKING:
    from .data.dataset import Dataset
    from .data.table import Table

Progress = Callable[[str], None]


def experiment_for(
    name: str | None,
    *,
    saved: Path | str | None = None,
    settings: Sequence[str] = (),
    steps: int | None = None,
    minutes: float | None = None,
    size: int | None = None,
    batch_size: int | None = None,
    device: str | None = None,
    seed: int | None = None,
    precision: str | None = None,
    tensorboard: bool = False,
    allow_leak: bool = False,
) -> Experiment:
    """The settings of a run: a method's or recipe's own (or those in a saved ``experiment.json``), then the changes asked for.

    Raises:
        ConfigError: unknown name or setting, or both ``steps`` and ``minutes``.
    """
    from . import recipes
    from .recipes.saved import load_experiment

    if (name is None) == (saved is None):
        raise ConfigError("name a method or recipe, or give a saved experiment, one of the two", hint="healmap list methods")
    if steps is not None and minutes is not None:
        raise ConfigError("steps and minutes exclude each other", hint="give one of them")
    experiment = recipes.get(name) if name is not None else load_experiment(Path(str(saved)))
    experiment = override(experiment, settings)
    method, data, training = experiment.method, experiment.data, experiment.training
    if steps is not None:
        if steps < 1:
            raise ConfigError(f"steps must be at least 1, not {steps}", where="--steps", hint="for example 2000")
        method, training = replace(method, steps=steps), replace(training, minutes=None)
    changes: dict[str, Any] = {"minutes": minutes, "device": device, "seed": seed, "precision": precision}
    if tensorboard:
        changes["tensorboard"] = True
    training = replace(training, **{k: v for k, v in changes.items() if v is not None})
    changes = {"size": size, "batch_size": batch_size, "allow_leak": allow_leak or None}
    data = replace(data, **{k: v for k, v in changes.items() if v is not None})
    return replace(experiment, method=method, data=data, training=training)


def with_splits(data: Path | str | Table) -> tuple[Table, str]:
    """A table whose rows have splits, and a note. A table without any is split here: by patient, 70/10/20, seed 0."""
    from .data.split import split_table
    from .data.table import Table, read_table

    table = data if isinstance(data, Table) else read_table(Path(data))
    if any(row.split for row in table.rows):
        return table, ""
    return split_table(table), "the table has no splits: split by patient 70/10/20 with seed 0"


def train(
    name: str | None,
    data: Path | str | Table,
    out: Path | str,
    *,
    experiment: Experiment | None = None,
    resume: bool = False,
    quiet: bool = False,
    **changes: Any,
) -> Path:
    """Train a method (or recipe) on a label table or folder and calibrate its thresholds on the validation split.

    Args:
        name: method or recipe; None with ``experiment`` or ``saved``.
        data: labels.csv, a folder with one, a folder per class, or a Table.
        out: the run folder, new or empty (or an interrupted run with ``resume``).
        experiment: full settings instead of a name.
        changes: as in :func:`experiment_for` (``steps``, ``minutes``, ``size``, ``device``, ``seed``, ``settings`` …).

    Returns:
        The run folder.

    Raises:
        UsageError: the data do not suit the method, or a patient or image stands in two splits (with the list).
    """
    from .data.dataset import open_dataset
    from .data.leaks import refuse_leaks
    from .detection.calibrate import calibrate
    from .training.run import train_run

    if experiment is None:
        experiment = experiment_for(name, **changes)
    table, split_note = with_splits(data)
    notes = [split_note] if split_note else []
    splits = {row.split for row in table.rows}
    if "train" not in splits:
        raise UsageError("no row belongs to the train split", where=table.name, hint="healmap data split makes splits")
    train_set = open_dataset(table, "train", experiment.data)
    opened: dict[str, Dataset] = {"train": train_set}
    for split in ("val", "test"):
        if split in splits:
            opened[split] = open_dataset(table, split, experiment.data, preprocessing=train_set.preprocessing)
    notes += refuse_leaks(opened, allow=experiment.data.allow_leak)
    val = opened.get("val")
    run = train_run(experiment, train_set, val, Path(out), resume=resume, notes=notes, quiet=quiet)
    if val is not None:
        calibrate(run, val)
    return run


def predict(
    run: Path | str, inputs: Path | str | Sequence[Path | str], out: Path | str, *, weights: str = "best", device: str = "auto",
    **options: Any,
) -> Mapping[str, Any]:  # fmt: skip
    """Score and heal images; see :func:`healmap.detection.batch.predict_many` for the files written and the counts returned."""
    from .detection.batch import predict_many
    from .detection.predictor import Predictor

    return predict_many(Predictor.load(Path(run), weights=weights, device=device), inputs, Path(out), **options)


def translate(
    run: Path | str, inputs: Path | str | Sequence[Path | str], out: Path | str, to: Sequence[str], *, weights: str = "best",
    device: str = "auto", **options: Any,
) -> Mapping[str, Any]:  # fmt: skip
    """Bring images into the domain (or attributes) ``to``; see :func:`healmap.detection.translate.translate_many`."""
    from .detection.predictor import Predictor
    from .detection.translate import translate_many

    return translate_many(Predictor.load(Path(run), weights=weights, device=device), inputs, Path(out), to, **options)


def evaluate(
    run: Path | str, data: Path | str | Table, out: Path | str, *, split: str = "test", weights: str = "best", **options: Any
) -> Mapping[str, Any]:
    """Figures, table and report of a run on labelled images; see :func:`healmap.evaluation.evaluate.evaluate_run`."""
    from .evaluation.evaluate import evaluate_run
    from .report.report import write_report

    table, note = with_splits(data)
    notes = [note] if note else []
    metrics = evaluate_run(Path(run), table, split, Path(out), weights=weights, notes=notes, **options)
    write_report(Path(out))
    return metrics


def compare(
    runs: Sequence[Path | str], data: Path | str | Table, out: Path | str, *, split: str = "test", weights: str = "best",
    **options: Any,
) -> Mapping[str, Any]:  # fmt: skip
    """One table and page of several runs on the same labelled images; see :func:`healmap.evaluation.compare.compare_runs`."""
    from .evaluation.compare import compare_runs
    from .report.compared import write_compared

    table, note = with_splits(data)
    notes = [note] if note else []
    found = compare_runs(runs, table, split, Path(out), weights=weights, notes=notes, **options)
    write_compared(Path(out))
    return found


def import_weights(
    program: str,
    file: Path | str,
    out: Path | str,
    *,
    critic: Path | str | None = None,
    reverse: Path | str | None = None,
    reverse_critic: Path | str | None = None,
    **options: Any,
) -> Path:
    """A run folder from the weights of a published program; see :func:`healmap.training.imported.import_run`.

    Args:
        program: stargan, fixed-point-gan, healthygan, brainomaly, descargan or cyclegan.
        file: what the program saved of its generator; CycleGAN: of the one that heals.
        out: the run folder, new or empty.
        critic, reverse, reverse_critic: further files of the same training; the latter two: CycleGAN's other direction.
        options: ``size``, ``domains``, ``attributes``, ``settings``.

    Returns:
        The run folder.
    """
    from . import recipes
    from .methods import published
    from .methods.published import Role
    from .training.imported import import_run

    published.get(program)
    given: dict[Role, Path | str | None] = {
        "generator": file, "critic": critic, "reverse": reverse, "reverse-critic": reverse_critic,
    }  # fmt: skip
    files = {role: Path(path) for role, path in given.items() if path is not None}
    return import_run(recipes.get(program), files, Path(out), **options)


def make_phantoms(out: Path | str, *, patients: int = 60, size: int = 64, seed: int = 0, pairs: bool = True) -> Table:
    """Write brain-like phantom slices with soft lesions, masks and healthy twins; see :mod:`healmap.data.phantoms`."""
    from .data.phantoms import make_phantoms as make

    return make(Path(out), patients=patients, size=size, seed=seed, pairs=pairs)


def make_ellipses(
    out: Path | str,
    *,
    train: int = 2000,
    val: int = 200,
    test: int = 200,
    size: int = 256,
    seed: int = 0,
    variant: Literal["fair", "published"] = "fair",
    pairs: bool = False,
) -> Table:
    """Write DeScarGAN's ellipses, with twins, signed truth and masks; see :func:`healmap.data.ellipses.make_ellipses`."""
    from .data.ellipses import make_ellipses as make

    return make(out, train=train, val=val, test=test, size=size, seed=seed, variant=variant, pairs=pairs)


def make_patches(
    source: Path | str | Table,
    out: Path | str,
    *,
    side: int = 40,
    size: int | None = None,
    seed: int = 0,
    counts: Sequence[int] | None = None,
    tell: Progress = lambda text: None,
) -> Table:
    """Write A2B-GAN's simulated anomalies on the healthy images of ``source``; see :func:`healmap.data.patches.make_patches`.

    counts: known healthy; mixed healthy, mixed diseased; validation healthy, diseased (both may be left out); test healthy,
    diseased. None: the paper's, scaled down where the source is smaller. tell: called with what was decided.
    """
    from .data.patches import Counts
    from .data.patches import make_patches as make

    return make(
        source, out, side=side, size=size, seed=seed, counts=Counts.of(counts) if counts is not None else None, tell=tell
    )


def mix(
    data: Path | str | Table,
    out: Path | str,
    *,
    healthy_share: float = 0.5,
    by: Literal["patient", "image"] = "patient",
    seed: int = 0,
    tell: Progress = lambda text: None,
) -> Table:
    """Write a label table with a known healthy set and an unlabelled mixture to ``out``; see :func:`healmap.data.mix.mix`."""
    from .data.mix import mix as mixed
    from .data.table import Table, read_table, write_table

    table, out = data if isinstance(data, Table) else read_table(data), Path(out)
    if table.name and out.resolve() == (table.root / table.name).resolve():
        raise UsageError("this would overwrite the labels that it hides", where=str(out), hint="name another file")
    hidden, notes = mixed(table, healthy_share=healthy_share, by=by, seed=seed)
    write_table(hidden, out)
    for note in notes:
        tell(note)
    return hidden
