"""DICOM files of one folder: which belong together, and the volume they form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import GeometryError, HealError, UnreadableError
from .dicom_geometry import along_normal, orientation_of, position_of, spacing_of, stack_geometry
from .dicom_parse import code, number, read_dataset, text
from .image import Image
from .limits import Limits, parsing

_TAGS = ("SeriesInstanceUID", "SOPInstanceUID", "Modality", "Rows", "Columns", "NumberOfFrames", "InstanceNumber",
         "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")  # fmt: skip
_NOT_IMAGES = {"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "RWV", "FID", "AU", "ECG", "DOC", "PLAN"}


@dataclass(frozen=True)
class Header:
    """What decides whether a file is a slice of a series."""

    path: Path
    series: str
    instance: str
    modality: str | None
    size: tuple[int, int] | None
    frames: int
    number: float
    position: np.ndarray | None
    orientation: np.ndarray | None
    spacing: tuple[float, float] | None

    @property
    def is_image(self) -> bool:
        return self.size is not None and self.modality not in _NOT_IMAGES

    @property
    def is_slice(self) -> bool:
        return self.is_image and self.frames == 1 and self.position is not None and self.orientation is not None


def read_header(path: Path, limits: Limits) -> Header:
    ds = read_dataset(path, limits, tags=_TAGS)
    with parsing(path, "DICOM", quote=False):
        rows, columns = number(ds, "Rows"), number(ds, "Columns")
        return Header(
            path,
            text(ds, "SeriesInstanceUID") or f"file {path.name}",
            text(ds, "SOPInstanceUID") or f"file {path.name}",
            code(ds, "Modality"),
            (int(rows), int(columns)) if rows and columns else None,
            int(number(ds, "NumberOfFrames") or 1),
            number(ds, "InstanceNumber") or 0.0,
            position_of(ds),
            orientation_of(ds),
            spacing_of(ds),
        )


def cases(paths: Sequence[Path], limits: Limits = Limits()) -> list[Path]:
    """The DICOM files of one folder as cases: the folder itself when it holds a series of slices, else every file.

    Plans and reports are left out; other files beside a series (a segmentation of it) belong to it. A folder of
    several series comes back as the folder too: reading it then names the trouble instead of taking slices for cases.
    """
    groups: dict[str, list[Header]] = {}
    broken: list[Path] = []
    for path in paths:
        try:
            header = read_header(path, limits)
            if header.size is not None or header.modality not in _NOT_IMAGES:
                groups.setdefault(header.series, []).append(header)
        except HealError:
            broken.append(path)  # listed, so that reading it says what is wrong
    if any(_is_stack(group) for group in groups.values()):
        return [paths[0].parent]
    return sorted(broken + [header.path for group in groups.values() for header in group])


def _is_stack(group: Sequence[Header]) -> bool:
    """Whether slices of the series lie at different places. Copies of one object in several encodings do not."""
    places = [header.position for header in group if header.is_slice]
    return len(places) > 1 and float(np.ptp(np.array(places), axis=0).max()) > 1e-3


def read_all_series(folder: Path, limits: Limits) -> list[Image]:
    """One image per series of slices; multi-frame and other single files one each; files without pixels are left out.

    Raises:
        UnreadableError: no DICOM image in the folder, or one is damaged; GeometryError: see ``stack``.
    """
    images: list[Image] = []
    for group in _groups(folder, limits).values():
        images += _read_group(group, limits)
    return images


def read_only_series(folder: Path, limits: Limits) -> Image:
    """The one series of a folder; further files that are no images are ignored.

    Raises:
        UnreadableError: the folder holds none or several.
    """
    groups = _groups(folder, limits)
    if len(groups) > 1:
        found = ", ".join(f"{group[0].modality or '?'} with {len(group)} files" for group in groups.values())
        raise UnreadableError(
            f"the folder holds {len(groups)} DICOM series",
            where=str(folder),
            hint=f"give every series a folder of its own ({found})",
        )
    images = _read_group(next(iter(groups.values())), limits)
    if len(images) > 1:
        raise UnreadableError(
            f"the folder holds {len(images)} images that form no volume", where=str(folder), hint="name one file"
        )
    return images[0]


def _groups(folder: Path, limits: Limits) -> dict[str, list[Header]]:
    from .read import kind_of

    groups: dict[str, list[Header]] = {}
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise UnreadableError("cannot open the folder", where=str(folder), hint=error.strerror or "") from None
    for path in paths:
        if path.name.startswith(".") or not path.is_file() or path.stat().st_size == 0 or kind_of(path) != "dicom":
            continue
        header = read_header(path, limits)
        if header.is_image:
            groups.setdefault(header.series, []).append(header)
    if not groups:
        raise UnreadableError("the folder holds no DICOM image", where=str(folder))
    return groups


def _read_group(group: list[Header], limits: Limits) -> list[Image]:
    from .dicom import read_dicom

    if _is_stack(group):
        return [stack(group, limits)]
    return [read_dicom(header.path, limits) for header in group]


def stack(headers: Sequence[Header], limits: Limits) -> Image:
    """A volume (slices, rows, columns[, 3]) in the order of the slices along their normal (axial: from the feet up).

    Copies of the same object are used once. Gaps and uneven distances leave the volume without geometry, with a note; a gantry
    tilt gives a sheared affine.

    Raises:
        GeometryError: slices without position, of different size or direction, or several at one place.
    """
    from .dicom import read_dicom

    folder, notes = str(headers[0].path.parent), []
    unique = list({header.instance: header for header in reversed(headers)}.values())[::-1]
    if len(unique) < len(headers):
        notes.append(f"{len(headers) - len(unique)} copies of slices were left out")
    if any(not header.is_slice for header in unique):
        raise GeometryError(
            "some slices of the series state no position or are volumes themselves",
            where=folder,
            hint="give the other files a folder of their own",
        )
    sizes = {header.size for header in unique}
    if len(sizes) > 1:
        raise GeometryError(f"the slices of the series differ in size {sorted(str(size) for size in sizes)}", where=folder)
    orientations = np.array([header.orientation for header in unique])
    if np.abs(orientations - orientations[0]).max() > 1e-3:
        raise GeometryError("the slices of the series differ in direction", where=folder, hint="localisers belong elsewhere")
    positions = np.array([header.position for header in unique])
    heights = along_normal(positions, orientations[0])
    order = np.lexsort((np.array([header.number for header in unique]), heights))
    if len(unique) > 1 and np.diff(heights[order]).min() < 1e-3:
        raise GeometryError(
            "several slices of the series lie at the same place",
            where=folder,
            hint="echoes, time points or repeats: give each a folder of its own",
        )
    rows, columns = next(iter(sizes)) or (0, 0)
    limits.check_volume((len(unique), rows, columns), headers[0].path)
    slices = [read_dicom(unique[k].path, limits) for k in order]
    first = slices[0]
    if any(one.array.shape != first.array.shape or one.colour != first.colour for one in slices):
        raise GeometryError("the slices of the series differ in size or colour", where=folder)
    if any(one.patient_id != first.patient_id for one in slices):
        raise GeometryError("the slices of the series belong to different patients", where=folder)
    spacings = {header.spacing for header in unique}
    if len(spacings) > 1 and np.ptp(np.array([s or (0, 0) for s in spacings]), axis=0).max() > 1e-3:
        raise GeometryError("the slices of the series differ in pixel spacing", where=folder)
    geometry = None
    if len(unique) > 1:
        geometry = stack_geometry(positions[order], orientations[0], unique[0].spacing, notes)
    dtype = np.result_type(*(one.array.dtype for one in slices))
    padding = [np.zeros(one.shape, dtype=bool) if one.padding is None else one.padding for one in slices]
    return Image(
        np.stack([one.array.astype(dtype, copy=False) for one in slices]),
        "dicom",
        geometry=geometry,
        slice_axis=0,
        colour=first.colour,
        window=first.window,
        padding=np.stack(padding) if any(one.padding is not None for one in slices) else None,
        patient_id=first.patient_id,
        modality=first.modality,
        notes=tuple(dict.fromkeys([*notes, *(note for one in slices for note in one.notes)])),
        sources=tuple(unique[k].path for k in order),
        about=first.about,
    )
