"""Which images a folder holds."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import HealError, UnreadableError
from .read import kind_of

_KNOWN = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff", ".nii": "nifti"}
_NEVER = {".csv", ".json", ".txt", ".md", ".html", ".npy", ".npz", ".pt", ".safetensors", ".xml", ".pdf", ".zip", ".py", ".log"}


def find_images(folder: str | Path) -> list[Path]:
    """All images below ``folder``, sorted by path. A folder with the slices of a DICOM series stands for them as one entry.

    Names beginning with a dot are skipped, links are followed but no folder is entered twice. Known suffixes are believed
    (reading judges again by content), other names are looked into.
    """
    root = Path(folder)
    if not root.is_dir():
        raise UnreadableError("not a folder", where=str(root))
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for here, folders, names in os.walk(root, followlinks=True):
        try:
            status = os.stat(here)
        except OSError:  # gone since it was listed
            continue
        if (status.st_dev, status.st_ino) in seen:
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        dicom: list[Path] = []
        for name in sorted(names):
            path = Path(here, name)
            kind = None if name.startswith(".") else _guess(path)
            if kind == "dicom":
                dicom.append(path)
            elif kind:
                found.append(path)
        if dicom:
            from .dicom_series import cases

            found += cases(dicom)
    return sorted(found)


def _guess(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix in _NEVER:
        return None
    if suffix in _KNOWN or path.name.lower().endswith(".nii.gz"):
        return _KNOWN.get(suffix, "nifti")
    if suffix in (".dcm", ".dicom"):
        return "dicom"
    try:
        return kind_of(path)
    except HealError:
        return None
