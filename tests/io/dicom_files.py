"""DICOM files made on the spot, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian, "explicit": ExplicitVRLittleEndian, "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian, "rle": RLELossless, "jpeg-ls": JPEGLSLossless, "jpeg-2000": JPEG2000Lossless,
}  # fmt: skip


def dataset(
    stored: np.ndarray,
    *,
    bits: int | None = None,
    high: int | None = None,
    frames: int | None = None,
    photometric: str = "MONOCHROME2",
    planar: int | None = None,
    **tags: Any,
) -> Dataset:
    """A data set whose pixel element holds ``stored`` as it is: (frames,) rows, columns (, 3); planar 1: (3, rows, columns)."""
    colour = photometric not in ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
    shape = stored.shape[1:] if frames else stored.shape
    rows, columns = shape[1:] if planar == 1 else shape[:2]
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality, ds.PatientID = generate_uid(), generate_uid(), "CT", "P1"
    ds.PatientName = "Canary^Patient"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = rows, columns, 3 if colour else 1, photometric
    if planar is not None or colour:
        ds.PlanarConfiguration = planar or 0
    if frames:
        ds.NumberOfFrames = frames
    if stored.dtype.kind == "f":
        ds.BitsAllocated = 8 * stored.dtype.itemsize
        setattr(ds, "FloatPixelData" if stored.itemsize == 4 else "DoubleFloatPixelData", stored.tobytes())
    else:
        ds.BitsAllocated = 8 * stored.dtype.itemsize
        ds.BitsStored = bits or ds.BitsAllocated
        ds.HighBit = ds.BitsStored - 1 if high is None else high
        ds.PixelRepresentation = int(stored.dtype.kind == "i")
        data = stored.tobytes()
        ds.PixelData = data + b"\0" * (len(data) % 2)
        ds["PixelData"].VR = "OB" if ds.BitsAllocated == 8 else "OW"
    for keyword, value in tags.items():
        if value is None:
            if keyword in ds:
                del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def save(path: Path, ds: Dataset, syntax: str = "explicit") -> Path:
    uid = SYNTAXES[syntax]
    ds.file_meta.MediaStorageSOPClassUID, ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    if uid.is_encapsulated:
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        plugin = {"rle": "pydicom", "jpeg-ls": "pyjpegls", "jpeg-2000": "pylibjpeg"}[syntax]
        ds.compress(uid, generate_instance_uid=False, encoding_plugin=plugin)
    else:
        ds.file_meta.TransferSyntaxUID = uid
        if syntax == "big-endian" and ds.BitsAllocated > 8:
            ds.PixelData = np.frombuffer(ds.PixelData, dtype=f"u{ds.BitsAllocated // 8}").byteswap().tobytes()
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path


def make(path: Path, stored: np.ndarray, syntax: str = "explicit", **options: Any) -> Path:
    return save(path, dataset(stored, **options), syntax)


def series(
    folder: Path,
    volume: np.ndarray,
    *,
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    start: tuple[float, ...] = (0, 0, 0),
    spacing: tuple[float, float] = (1.0, 1.0),
    step: np.ndarray | None = None,
    keep: list[int] | None = None,
    **tags: Any,
) -> list[Path]:
    """Slices of ``volume`` (frames, rows, columns) at start + k * step (default: 2 mm along the normal), names scrambled."""
    folder.mkdir(parents=True, exist_ok=True)
    axis = np.cross(orientation[:3], orientation[3:]) * 2.0 if step is None else np.asarray(step)
    shared = {
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": "1.2.3.4",
        "PixelSpacing": list(spacing),
        "ImageOrientationPatient": list(orientation),
        **tags,
    }
    paths = []
    for k in keep if keep is not None else range(len(volume)):
        position = [round(float(v), 6) for v in np.asarray(start) + k * axis]
        name = f"{(k * 7919 + 13) % 1000:03d}.dcm"
        paths.append(make(folder / name, volume[k], ImagePositionPatient=position, InstanceNumber=k + 1, **shared))
    return paths
