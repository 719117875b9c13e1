"""Data sets that we have worked with: what they are, their terms, the settings that suit them, and how a model can be right on
them for the wrong reason. Text only: nothing is downloaded, and no method or loader looks here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ..experiment import DataConfig


@dataclass(frozen=True)
class Known:
    """layout: how the folder lies. settings: a good start. beware: shortcuts, with the score that a trivial baseline gets."""

    name: str
    what: str
    terms: str
    layout: str
    beware: str
    settings: DataConfig = field(default_factory=DataConfig)


_TABLE = "labels.csv beside the images, splits by patient"

KNOWN: tuple[Known, ...] = (
    Known(
        "lgg_flair", "brain FLAIR slices with tumour masks (TCGA-LGG, 82 patients), 256 x 256, 8 bit",
        "CC BY-NC-SA 4.0, scans CC BY 3.0", _TABLE,
        "healthy slices come from ill brains and lie nearer base and vertex: thumbnails reach AUC 0.75; brightness differs "
        "from patient to patient; data.min_slices_to_tumour=3 gives a stricter healthy class",
        DataConfig(size=128, normalisation="foreground-median"),
    ),
    Known(
        "brats2013", "brain FLAIR and T1c volumes with tumour labels (excerpt of 4 patients), NIfTI", "CC BY-NC-SA 3.0 CH",
        "labels.csv names volumes, slices.csv labels their axial planes; choose one with data.select=modality=flair",
        "4 patients prove nothing; healthy planes lie at base and vertex",
        DataConfig(size=128, normalisation="foreground-median", select="modality=flair"),
    ),
    Known(
        "chestxray14_pneumonia", "chest films, no finding against pneumonia (NIH, 506 patients), 256 x 256, 8 bit",
        "free, NIH named as provider", _TABLE,
        "healthy films are brighter (AUC 0.72) and come from another block of patients; thumbnails reach 0.82",
        DataConfig(size=256, normalisation="percentile", flip=False),    # the heart lies on one side
    ),
    Known(
        "chestxray14_64", "chest films, no finding against any (NIH, 200 patients), 64 x 64, 8 bit",
        "free, NIH named as provider", _TABLE,
        "lying patients are ill more often (AUC 0.60); many findings cannot be seen at this size; thumbnails reach 0.63",
        DataConfig(size=64, normalisation="percentile", flip=False),
    ),
    Known(
        "mias", "mammograms with boxed abnormalities (121 women), 512 x 512, 8 bit", "research only", _TABLE,
        "few, small lesions and bright film edges: poor results are the expected ones; thumbnails reach 0.59",
        DataConfig(size=256, normalisation="percentile"),
    ),
    Known(
        "phantoms", "made-up brain-like slices with masks and healthy twins ('healmap data make phantoms')", "none apply",
        _TABLE, "they show that a program works, nothing about real images",
        DataConfig(size=64, normalisation="foreground-median"),
    ),
    Known(
        "ellipses", "DeScarGAN's ellipses on waves, with masks, signed truth and healthy twins ('healmap data make ellipses')",
        "none apply", _TABLE,
        "variant fair: the diseased ellipse is smaller, so that mean brightness reaches AUC 0.90; variant published: the least "
        "value, the border and the sharpness of the background each tell the class (AUC 1.00)",
        DataConfig(size=256, normalisation="none"),    # one map for all values; per-image ones would stretch each picture anew
    ),
)  # fmt: skip
