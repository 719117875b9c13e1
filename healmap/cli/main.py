"""The command line: parse, call one function, present. No science, and nothing heavy imported before it is needed."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from .. import __version__
from ..errors import HealError

WRONG_USAGE, FAILED, SOME_FAILED, STOPPED = 2, 1, 3, 130


class _Parser(argparse.ArgumentParser):
    """Wrong usage in one line: what, and where to look."""

    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(WRONG_USAGE, f"healmap: {message} (see {self.prog} --help)\n")


def _add(group: argparse._SubParsersAction, name: str, text: str, example: str, run: Callable) -> argparse.ArgumentParser:
    parser = group.add_parser(
        name, help=text, description=text, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _group(parent: argparse._SubParsersAction, name: str, text: str, example: str) -> argparse._SubParsersAction:
    parser = parent.add_parser(
        name, help=text, description=text, epilog=f"example:\n  {example}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    return parser.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=_Parser)


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="healmap",
        description="Finds and localises disease in medical images by virtual healing, from image-level labels alone.",
        epilog="Research software, not a medical device. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 finished but some "
        "inputs failed, 130 stopped and saved.",
    )
    parser.add_argument("--version", action="version", version=f"healmap {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)

    listing = _add(commands, "list", "what there is: methods, recipes or data sets", "healmap list methods", _list)
    listing.add_argument("what", choices=("methods", "recipes", "datasets"))

    data = _group(commands, "data", "check, split or make data", "healmap data check images/")
    check = _add(
        data, "check", "what is there and what is wrong, all faults at once", "healmap data check images/", _data_check
    )
    check.add_argument("path", type=Path, metavar="PATH", help="a labels.csv, a folder with one, or a folder per class")
    check.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE",
        help="read the images as training with these settings will: data.nonfinite=lowest data.axis=0",
    )  # fmt: skip
    split = _add(
        data,
        "split",
        "write a label table with patient-level splits",
        "healmap data split images/ --out labels.csv",
        _data_split,
    )
    split.add_argument("path", type=Path, metavar="PATH")
    split.add_argument("--out", type=Path, required=True, metavar="FILE", help="the label table to write")
    split.add_argument("--fractions", default="0.7,0.1,0.2", help="train, val and test shares (default 0.7,0.1,0.2)")
    split.add_argument("--seed", type=int, default=0)
    mix = _add(
        data, "mix", "hide labels: a known healthy set and an unlabelled mixture, from any labelled table",
        "healmap data mix images/ --out mixed.csv --healthy-share 0.7", _data_mix,
    )  # fmt: skip
    mix.add_argument("path", type=Path, metavar="PATH")
    mix.add_argument("--out", type=Path, required=True, metavar="FILE", help="the label table to write")
    mix.add_argument("--healthy-share", type=float, default=0.5, metavar="S", help="of the mixture, 0 to below 1 (0.5)")
    mix.add_argument("--by", default="patient", choices=("patient", "image"), help="patient (default): nobody is in both sets")
    mix.add_argument("--seed", type=int, default=0)
    make = _group(data, "make", "generate a data set", "healmap data make phantoms out --patients 60 --size 64 --seed 0")
    phantoms = _add(
        make, "phantoms", "brain-like slices with lesions, masks and healthy twins",
        "healmap data make phantoms out --patients 60 --size 64 --seed 0", _data_make_phantoms,
    )  # fmt: skip
    phantoms.add_argument("out", type=Path, metavar="OUT")
    phantoms.add_argument("--patients", type=int, default=60)
    phantoms.add_argument("--size", type=int, default=64, help="side length in pixels")
    phantoms.add_argument("--seed", type=int, default=0)
    phantoms.add_argument(
        "--pairs", action=argparse.BooleanOptionalAction, default=True, help="keep the twins of diseased training images too"
    )
    ellipses = _add(
        make, "ellipses", "DeScarGAN's ellipses, with masks, signed truth and healthy twins",
        "healmap data make ellipses out --train 2000 --val 200 --test 200 --size 256 --seed 0", _data_make_ellipses,
    )  # fmt: skip
    ellipses.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    for part, count in (("train", 2000), ("val", 200), ("test", 200)):
        ellipses.add_argument(f"--{part}", type=int, default=count, metavar="N", help=f"images of either class ({count})")
    ellipses.add_argument("--size", type=int, default=256, help="side length in pixels (256)")
    ellipses.add_argument("--seed", type=int, default=0)
    ellipses.add_argument(
        "--variant", default="fair", choices=("fair", "published"),
        help="fair (default): only the anomaly tells the classes apart; published: as the released script makes them",
    )  # fmt: skip
    ellipses.add_argument("--pairs", action="store_true", help="keep the twins of diseased training images too (pix2pix)")
    patches = _add(
        make, "patches", "A2B-GAN's anomaly on healthy images: a square becomes its mean; known healthy, mixed and test set",
        "healmap data make patches celeba/ out --side 40 --size 128", _data_make_patches,
    )  # fmt: skip
    patches.add_argument("source", type=Path, metavar="FROM", help="a labels.csv or a folder of images")
    patches.add_argument("out", type=Path, metavar="OUT", help="a new folder")
    patches.add_argument("--side", type=int, default=40, help="of the square, in pixels (40)")
    patches.add_argument("--size", type=int, default=None, help="resize the images' centre squares first (the paper: 128)")
    patches.add_argument("--seed", type=int, default=0)
    patches.add_argument(
        "--counts", type=_integers, default=None, metavar="B,A0,A1[,V0,V1],T0,T1",
        help="known healthy; mixed healthy, diseased; validation; test (the paper's 5000,3500,1500 and 2500,2500, scaled down "
        "where FROM is smaller)",
    )  # fmt: skip

    _add_train(commands)
    _add_import(commands)

    predict = _add(commands, "predict", "score and heal images", "healmap predict run -i scans/ -o results", _predict)
    predict.add_argument("model", type=Path, metavar="RUN", help="a run folder")
    predict.add_argument(
        "-i", "--input", nargs="+", type=Path, required=True, metavar="PATH", help="files, folders or a labels.csv"
    )
    predict.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    predict.add_argument(
        "--assume-diseased", action="store_true", help="va-gan: take every image as diseased, whatever a table says"
    )
    predict.add_argument("--npy", action="store_true", help="write maps as .npy instead of 16-bit PNG")
    _add_apply(predict)

    translate = _add(
        commands, "translate", "bring images into another domain: a class, an attribute, a modality",
        "healmap translate run --to black_hair,male -i faces/ -o results", _translate,
    )  # fmt: skip
    translate.add_argument("model", type=Path, metavar="RUN", help="a run folder")
    translate.add_argument(
        "--to", type=_names, required=True, metavar="NAME", help="a domain, or the attributes that shall hold"
    )
    translate.add_argument("-i", "--input", nargs="+", type=Path, required=True, metavar="PATH")
    translate.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    translate.add_argument("--npy", action="store_true", help="write .npy instead of pictures")
    translate.add_argument("--assume-diseased", action="store_true", help="va-gan: take every image as diseased")
    _add_apply(translate)

    evaluate = _add(
        commands, "evaluate", "figures with intervals, baselines and a report",
        "healmap evaluate run --data images/ --split test -o results", _evaluate,
    )  # fmt: skip
    evaluate.add_argument("model", type=Path, metavar="RUN", help="a run folder")
    evaluate.add_argument("--data", type=Path, required=True, metavar="PATH")
    evaluate.add_argument("--split", default="test", choices=("train", "val", "test"))
    evaluate.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    evaluate.add_argument("--bootstrap", type=int, default=500, metavar="N", help="resamples of patients for the intervals")
    evaluate.add_argument("--assume-diseased", action="store_true", help="va-gan: heal the healthy images as well")
    evaluate.add_argument("--no-baselines", action="store_true", help="leave the trivial baselines out")
    _add_apply(evaluate)

    compare = _add(
        commands, "compare", "several runs on the same images: one table, one page with the same cases side by side",
        "healmap compare runs/padim runs/vae runs/restoration --data images/ --split test -o comparison", _compare,
    )  # fmt: skip
    compare.add_argument(
        "models", nargs="+", type=Path, metavar="RUN",
        help="run folders; differences are to the first, and the baselines see the images as it does",
    )  # fmt: skip
    compare.add_argument("--data", type=Path, required=True, metavar="PATH")
    compare.add_argument("--split", default="test", choices=("train", "val", "test"))
    compare.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT", help="gets table.csv, table.md, compare.html, compare.json"
    )
    compare.add_argument("--bootstrap", type=int, default=500, metavar="N", help="resamples of patients for the intervals")
    compare.add_argument(
        "--cases", type=int, default=3, metavar="N", help="diseased and as many healthy images on the page (3)"
    )
    compare.add_argument("--assume-diseased", action="store_true", help="va-gan: heal the healthy images as well")
    _add_apply(compare)

    demo = _add(commands, "demo", "phantoms, two methods, a report: about five minutes on two cores", "healmap demo", _demo)
    demo.add_argument("--out", type=Path, default=Path("demo"), metavar="OUT")
    demo.add_argument(
        "--minutes", type=float, nargs=2, default=None, metavar=("R", "F"), help="training minutes of the two methods"
    )
    demo.add_argument("--seed", type=int, default=0)
    return parser


def _add_train(commands: argparse._SubParsersAction) -> None:
    train = _add(
        commands,
        "train",
        "train a method or recipe",
        "healmap train fixed-point-gan --data images/ --out run --minutes 30",
        _train,
    )
    train.add_argument(
        "name", nargs="?", metavar="NAME", help="a method or recipe (healmap list methods, healmap list recipes)"
    )
    train.add_argument("-c", "--config", type=Path, metavar="FILE", help="start from a saved experiment.json instead of a name")
    train.add_argument(
        "--data", type=Path, required=True, metavar="PATH", help="a labels.csv, a folder with one, or a folder per class"
    )
    train.add_argument("--out", type=Path, required=True, metavar="RUN", help="the run folder, new or empty")
    train.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE",
        help="change settings by path: method.lambda_id=0.5 data.normalisation=window training.ema=0.999",
    )  # fmt: skip
    length = train.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, metavar="N", help="iterations of the paper's training loop")
    length.add_argument("--minutes", type=float, metavar="M", help="train this long instead")
    train.add_argument("--size", type=int, help="working side length in pixels")
    train.add_argument("--batch-size", type=int)
    train.add_argument("--device", default=None, help="auto, cpu, cuda or mps")
    train.add_argument("--precision", default=None, choices=("auto", "32", "bf16", "16"))
    train.add_argument("--seed", type=int, default=None)
    train.add_argument("--resume", action="store_true", help="go on with an interrupted run, exactly where it stopped")
    train.add_argument("--tensorboard", action="store_true", help="also write TensorBoard files")
    train.add_argument(
        "--allow-leak", action="store_true", help="train although a patient or image is in two splits (goes into the report)"
    )
    train.add_argument("--quiet", action="store_true", help="no progress display")


def _add_import(commands: argparse._SubParsersAction) -> None:
    load = _add(
        commands, "import", "make a run from the weights that a published program saved",
        "healmap import stargan 200000-G.ckpt --critic 200000-D.ckpt -o run", _import,
    )  # fmt: skip
    load.add_argument(
        "program", metavar="PROGRAM", help="stargan, fixed-point-gan, healthygan, brainomaly, descargan or cyclegan"
    )
    load.add_argument("file", type=Path, metavar="FILE", help="the generator's weights; CycleGAN: of the one that heals")
    load.add_argument("-o", "--output", type=Path, required=True, metavar="RUN", help="the run folder, new or empty")
    load.add_argument("--critic", type=Path, metavar="FILE", help="the critic's weights")
    load.add_argument("--reverse", type=Path, metavar="FILE", help="CycleGAN: the generator of the other direction")
    load.add_argument("--reverse-critic", type=Path, metavar="FILE", help="CycleGAN: the critic of the other direction")
    load.add_argument("--size", type=int, help="working side length in pixels, where the files do not tell it")
    load.add_argument("--domains", type=_names, default=(), metavar="A,B", help="classes in the program's order, healthy first")
    load.add_argument(
        "--attributes", type=_names, default=(), metavar="A,B,C", help="label planes of which any number may be on"
    )
    load.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="PATH=VALUE",
        help="change settings by path: data.normalisation=percentile method.score=mean",
    )  # fmt: skip


def _integers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of whole numbers") from None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _add_apply(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", default="best", choices=("best", "last"))
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")


def _list(args: argparse.Namespace) -> int:
    from . import listing

    getattr(listing, args.what)()
    return 0


def _data_check(args: argparse.Namespace) -> int:
    from ..config import override
    from ..data.check import check
    from ..experiment import DataConfig
    from . import listing

    config = override(DataConfig(), [word.removeprefix("data.") for word in args.set])
    return listing.faults(check(args.path, config))


def _data_split(args: argparse.Namespace) -> int:
    from ..data.split import split_table
    from ..data.table import read_table, write_table
    from ..errors import ConfigError

    try:
        train, val, test = (float(part) for part in args.fractions.split(","))
    except ValueError:
        raise ConfigError(f"'{args.fractions}' are no three shares", where="--fractions", hint="write 0.7,0.1,0.2") from None
    table = split_table(read_table(args.path), fractions=(train, val, test), seed=args.seed)
    write_table(table, args.out)
    from . import listing

    listing.split_counts(table)
    print(f"written: {args.out}")
    return 0


def _data_make_phantoms(args: argparse.Namespace) -> int:
    from ..api import make_phantoms

    table = make_phantoms(args.out, patients=args.patients, size=args.size, seed=args.seed, pairs=args.pairs)
    print(f"{len(table.rows)} images of {args.patients} patients in {args.out} (labels.csv, images/, masks/)")
    return 0


def _data_mix(args: argparse.Namespace) -> int:
    from ..api import mix

    mix(args.path, args.out, healthy_share=args.healthy_share, by=args.by, seed=args.seed, tell=print)
    print(f"written: {args.out}")
    return 0


def _data_make_ellipses(args: argparse.Namespace) -> int:
    from ..api import make_ellipses

    table = make_ellipses(
        args.out, train=args.train, val=args.val, test=args.test, size=args.size, seed=args.seed, variant=args.variant,
        pairs=args.pairs,
    )  # fmt: skip
    print(f"{len(table.rows)} images in {args.out} (labels.csv, images/, twins/, truth/, masks/, dataset.json)")
    return 0


def _data_make_patches(args: argparse.Namespace) -> int:
    from ..api import make_patches

    table = make_patches(args.source, args.out, side=args.side, size=args.size, seed=args.seed, counts=args.counts, tell=print)
    print(f"{len(table.rows)} images in {args.out} (labels.csv, images/, twins/, masks/, dataset.json)")
    return 0


def _train(args: argparse.Namespace) -> int:
    from .. import api

    experiment = api.experiment_for(
        args.name, saved=args.config, settings=args.set, steps=args.steps, minutes=args.minutes, size=args.size,
        batch_size=args.batch_size, device=args.device, seed=args.seed, precision=args.precision,
        tensorboard=args.tensorboard, allow_leak=args.allow_leak,
    )  # fmt: skip
    run = api.train(None, args.data, args.out, experiment=experiment, resume=args.resume, quiet=args.quiet)
    print(f"run: {run}\nnext: healmap evaluate {run} --data {args.data} --split test -o {run}/test")
    return 0


def _import(args: argparse.Namespace) -> int:
    import json

    from .. import api

    run = api.import_weights(
        args.program, args.file, args.output, critic=args.critic, reverse=args.reverse, reverse_critic=args.reverse_critic,
        size=args.size, domains=args.domains, attributes=args.attributes, settings=args.set,
    )  # fmt: skip
    for note in json.loads((run / "manifest.json").read_text(encoding="utf-8"))["notes"]:
        print(note)
    print(f"run: {run}\nnext: healmap predict {run} -i IMAGES -o results")
    return 0


def _predict(args: argparse.Namespace) -> int:
    from .. import api

    counts = api.predict(
        args.model, args.input, args.output, weights=args.weights, device=args.device, npy=args.npy,
        assume_diseased=args.assume_diseased,
    )  # fmt: skip
    print(f"{counts['done']} images scored, {counts['failed']} failed: {args.output}/scores.csv")
    return SOME_FAILED if counts["failed"] else 0


def _translate(args: argparse.Namespace) -> int:
    from .. import api

    counts = api.translate(
        args.model, args.input, args.output, args.to, weights=args.weights, device=args.device, npy=args.npy,
        assume_diseased=args.assume_diseased,
    )  # fmt: skip
    print(f"{counts['done']} images translated, {counts['failed']} failed: {args.output}/translations.csv, grid.png")
    return SOME_FAILED if counts["failed"] else 0


def _evaluate(args: argparse.Namespace) -> int:
    from .. import api
    from . import listing

    metrics = api.evaluate(
        args.model, args.data, args.output, split=args.split, weights=args.weights, device=args.device,
        bootstrap=args.bootstrap, baselines=not args.no_baselines, assume_diseased=args.assume_diseased,
    )  # fmt: skip
    listing.metrics(metrics)
    print(f"report: {args.output / 'report.html'}")
    return 0


def _compare(args: argparse.Namespace) -> int:
    from .. import api
    from . import listing

    found = api.compare(
        args.models, args.data, args.output, split=args.split, weights=args.weights, device=args.device,
        bootstrap=args.bootstrap, cases=args.cases, assume_diseased=args.assume_diseased, tell=print,
    )  # fmt: skip
    listing.comparison(found)
    for bad in found["failed"]:
        print(f"healmap: {bad['run']}: {bad['error']}", file=sys.stderr)
    print(f"table: {args.output / 'table.md'}\npage: {args.output / 'compare.html'}")
    return SOME_FAILED if found["failed"] else 0


def _demo(args: argparse.Namespace) -> int:
    from .demo import demo

    return demo(args.out, minutes=args.minutes, seed=args.seed)


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as one line of our own, without the source line that Python would quote."""
    print(f"healmap: warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: returns the exit code. Errors of ours are one line on standard error, without traceback."""
    args = build_parser().parse_args(arguments)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            return args.run(args)
    except HealError as error:
        print(f"healmap: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("healmap: stopped", file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # the reader of our output went away (head, less)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        print(f"healmap: {error.strerror or error} ({error.filename or 'input or output'})", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
