"""ROC, average precision, Dice, FROC, kappa, SSIM and intervals: arrays in, numbers out, no torch.

``image_level`` reads scores and labels, ``overlap`` two masks, ``similarity`` two images, ``froc`` maps and lesions;
``bins`` holds counts per threshold, from which ``curves`` computes every pooled figure, and ``bootstrap`` its interval.
"""

from . import bins, bootstrap, curves, froc, image_level, overlap, similarity
from .bins import Bins, PixelTally, exact_bins
from .bootstrap import Figure
from .froc import Froc
from .image_level import auroc, average_precision

__all__ = [
    "Bins",
    "Figure",
    "Froc",
    "PixelTally",
    "auroc",
    "average_precision",
    "bins",
    "bootstrap",
    "curves",
    "exact_bins",
    "froc",
    "image_level",
    "overlap",
    "similarity",
]
