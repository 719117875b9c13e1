"""``write_report``: one evaluation as one page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import drawings as d
from .page import Evaluation, at, read_evaluation, write_page
from .pictures import case_rows
from .verdict import summary, verdicts

# path -> (title, what it means), grouped as the table shows them
FIGURES: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "Detection: is the image diseased?": {
        "image.auroc": ("AUROC", "chance that a diseased image scores higher than a healthy one"),
        "image.ap": ("average precision", "depends on how many images are diseased"),
        "image.sensitivity": ("sensitivity", "at the validation threshold"),
        "image.specificity": ("specificity", "at the validation threshold"),
    },
    "Localisation: where?": {
        "pixel.auroc": ("pixel AUROC", "easy to push up by background; read AP instead"),
        "pixel.ap": ("pixel AP", "pooled over all annotated images"),
        "pixel.dice": ("Dice", "pooled, at the validation threshold: what use would give"),
        "pixel.dice_per_slice": ("Dice per image", "mean over images with a lesion, at the validation threshold"),
        "pixel.dice_best": ("best Dice", "pooled, at the threshold that suits these very labels best: an upper bound"),
        "pixel.iou": ("IoU", "pooled, at the validation threshold"),
        "lesion.sensitivity_at_1fp": ("lesions found at 1 FP per image", "from the FROC curve of these labels"),
        "lesion.sensitivity": ("lesions found", "at the validation threshold"),
        "lesion.false_positives_per_image": ("false positives per image", "at the validation threshold"),
    },
    "Healing": {
        "healthy.change": ("change on healthy images", "share of the full intensity range; less is better"),
        "twin.mse": ("distance from the healthy twin", "mean squared, images in [-1, 1], after healing; less is better"),
        "twin.mse_untouched": ("distance before healing", "the same for the diseased image as it is"),
        "twin.mse_difference": ("MSE(d, GT)", "difference map against the true one, as in DeScarGAN's tables"),
        "twin.ssim_difference": ("SSIM(d, GT)", "likewise; more is better"),
    },
}
GLANCE = {
    "image.auroc": "image AUROC", "image.ap": "image AP", "pixel.ap": "pixel AP", "pixel.dice": "Dice (validation threshold)",
    "pixel.dice_best": "Dice (best threshold)", "lesion.sensitivity_at_1fp": "lesions found at 1 FP/image",
}  # fmt: skip
PERCENT = ("healthy.change",)
INTERVALS = "95 %, percentiles of {resamples} resamples of {patients} patients, seed {seed}"
SECTIONS = {
    "best": ("Found best", "Diseased images with the highest Dice at the validation threshold, one per patient."),
    "worst": ("Missed most", "Diseased images with the lowest Dice; of equally missed lesions the largest first."),
    "alarm": ("False alarms", "Healthy images with the highest scores."),
    "calm": ("Ordinary healthy images", "Healthy images whose scores lie in the middle."),
}
BY_SCORE = {  # where no image has a Dice: no map, no masks or no threshold
    "best": "Diseased images with the highest scores, one per patient.",
    "worst": "Diseased images with the lowest scores.",
}
PAPER = {
    "paper.image.accuracy": "accuracy at the equal-error threshold of these labels (HealthyGAN, Brainomaly)",
    "paper.image.sensitivity": "sensitivity there",
    "paper.image.specificity": "specificity there",
    "paper.pixel.dice_p99": "Dice of pixels at or above each image's own 99th percentile (Fixed-Point GAN as released)",
}


def write_report(evaluation: Path | str, out: Path | str | None = None) -> Path:
    """Makes ``report.html`` of a folder written by ``healmap evaluate`` (by default inside it) and returns its path.

    Raises:
        UsageError: the folder is not a complete evaluation.
    """
    found = read_evaluation(evaluation)
    tree, protocol = found.metrics, found.protocol
    verdict = verdicts(tree)
    named = {d.NAMES[k]: (points, d.COLOURS[k]) for k, points in found.curves["roc"].items()}
    froc = {d.NAMES[k]: (points, d.COLOURS[k]) for k, points in found.curves["froc"].items()}
    detectors = {d.NAMES["method"]: tree} | {d.NAMES[k]: tree["baseline"][k] for k in tree.get("baseline", {})}
    own = {path: title for path, title in GLANCE.items() if (at(tree, path) or {}).get("value") is not None}
    rows = d.forest_rows(detectors, own)
    rated = any(row["dice"] is not None for row in found.rows)
    sections = [
        {"title": title, "text": text if rated else BY_SCORE.get(role, text), "rows": case_rows(found, role)}
        for role, (title, text) in SECTIONS.items()
    ]
    return write_page(
        "report.html",
        Path(out) if out is not None else found.folder / "report.html",
        title=f"{found.name} on {protocol['data']['name']}, {protocol['data']['split']}",
        e=found,
        protocol=protocol,
        summary=summary(verdict),
        verdicts=verdict,
        headline=headline(found),
        glance=d.forest(rows, {d.NAMES[k]: d.COLOURS[k] for k in d.NAMES if d.NAMES[k] in detectors}) if rows else None,
        table=table(tree),
        baselines=list(tree.get("baseline", {})),
        plots=[p for p in (d.roc_curves(named), d.score_histogram(found), d.froc_curves(froc) if maps(found) else None) if p],
        scales=scales(found),
        mapped=maps(found),
        sections=[s for s in sections if s["rows"]],
        training=d.training_curves(found.log),
        paper=[(title, at(tree, path)) for path, title in PAPER.items() if (at(tree, path) or {}).get("value") is not None],
        facts=facts(protocol),
    )


def heals(found: Evaluation) -> bool:
    return any(name.endswith("/healed") for name in found.pictures)


def maps(found: Evaluation) -> bool:
    return any(name.endswith("/map") for name in found.pictures)


def scales(found: Evaluation) -> str | None:
    """The colour bars of what the run's pictures show."""
    pixel = found.protocol["thresholds"]["pixel"]["value"]
    return d.colour_scales(found.top, pixel, signed=heals(found), mapped=maps(found))


def headline(found: Evaluation) -> list[dict[str, Any]]:
    """The few figures that stand large at the head."""
    shown = (
        ("image.auroc", "image AUROC"),
        ("pixel.ap", "pixel AP"),
        ("pixel.dice", "Dice"),
        ("healthy.change", "change on healthy"),
    )
    return [{"title": title, "figure": at(found.metrics, path), "percent": path in PERCENT} for path, title in shown]


def table(tree: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Groups of rows: title, meaning, the method's figure and the baselines'."""
    groups = []
    for group, figures in FIGURES.items():
        rows = []
        for path, (title, meaning) in figures.items():
            mine = at(tree, path)
            others = [at(tree, f"baseline.{name}.{path}") for name in tree.get("baseline", {})]
            if mine is not None:
                rows.append({"title": title, "meaning": meaning, "figure": mine, "others": others, "percent": path in PERCENT})
        groups.append({"title": group, "rows": rows})
    return groups


def facts(protocol: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Settings and provenance as titled tables."""
    weights, training = protocol["weights"], dict(protocol["training"])
    finished = training.pop("finished", None) or {}
    machine = training.pop("machine", None) or {}
    run = {
        "run": protocol["run"], "method": protocol["method"], "recipe": protocol["recipe"], "learns from": protocol["needs"],
        "weights": f"{weights['name']}, step {weights['step']} ({weights['chosen']})", "SHA-256": weights["sha256"],
        **training, "training seconds": finished.get("seconds"), "machine": machine,
    }  # fmt: skip
    data = {
        "evaluated": protocol["evaluated"], "labels": protocol["data"]["counts"],
        "fingerprint": protocol["data"]["fingerprint"], "intervals": INTERVALS.format(**protocol["bootstrap"]),
        **protocol["rules"],
        **{f"baseline {name}": about for name, about in protocol.get("baselines", {}).items()},
    }  # fmt: skip
    return [
        ("Run", {k: v for k, v in run.items() if v not in (None, "", {})}),
        ("Evaluation", data),
        ("Method settings", protocol["settings"]["method"]),
        ("Data settings", protocol["settings"]["data"]),
        ("Versions", protocol["versions"]),
    ]
