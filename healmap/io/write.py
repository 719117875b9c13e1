"""Results in files: maps on the input's own grid, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from ..errors import DataError, GeometryError
from .atomic import replacing, write_json
from .image import Image


def write_map(path: str | Path, array: np.ndarray, like: Image, *, form: Literal["auto", "npy"] = "auto") -> Path:
    """Writes a map of the shape of ``like`` (without its colour axis) and returns the file; the suffix is chosen here.

    NIfTI in: float32 ``.nii.gz`` with the same qform, sform, voxel sizes and version. Other volumes with an affine: the same,
    in the array's axis order. Planes: 16-bit ``.png`` with ``.json`` beside it, value = offset + scale * pixel. Volumes
    without an affine, or ``form="npy"``: float32 ``.npy``.

    path: without suffix. array: numbers, all finite.
    """
    array = np.asarray(array, dtype=np.float32)
    if array.shape != like.shape:
        raise GeometryError(f"a map of shape {array.shape} does not lie on the image's grid {like.shape}", where=str(path))
    if not np.isfinite(array).all():
        raise DataError("the map holds values that are not numbers", where=str(path))
    path = Path(path)
    if form == "npy" or (like.is_volume and like.header is None and like.affine is None):
        return _write_npy(path, array)
    if like.is_volume:
        return _write_nifti(path, array, like)
    return _write_png16(path, array)


def write_png(path: str | Path, array: np.ndarray) -> Path:
    """Writes uint8 (H, W) or (H, W, 3) as PNG."""
    import PIL.Image

    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise DataError(f"a picture is uint8 (H, W) or (H, W, 3), not {array.dtype} {array.shape}", where=str(path))
    with replacing(path) as temporary:
        PIL.Image.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG")
    return Path(path)


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)  # not Path.with_suffix: "case.1" is a name, not a suffix


def _write_npy(path: Path, array: np.ndarray) -> Path:
    target = _with_suffix(path, ".npy")
    with replacing(target) as temporary, open(temporary, "wb") as file:
        np.save(file, array, allow_pickle=False)
    return target


def _write_png16(path: Path, array: np.ndarray) -> Path:
    import PIL.Image

    offset, top = float(array.min()), float(array.max())
    scale = (top - offset) / 65535 or 1.0
    pixels = np.rint((array.astype(np.float64) - offset) / scale).astype(np.uint16)
    target = _with_suffix(path, ".png")
    with replacing(target) as temporary:
        PIL.Image.fromarray(pixels).save(temporary, format="PNG")
    key = {"file": target.name, "scale": scale, "offset": offset, "value": "offset + scale * pixel"}
    write_json(_with_suffix(path, ".json"), key)
    return target


def _write_nifti(path: Path, array: np.ndarray, like: Image) -> Path:
    from nibabel.nifti1 import Nifti1Header, Nifti1Image
    from nibabel.nifti2 import Nifti2Header, Nifti2Image

    source = like.header
    two = isinstance(source, Nifti2Header)
    header = (Nifti2Header if two else Nifti1Header)()
    header.set_data_dtype(np.float32)
    header.set_data_shape(array.shape)
    if source is not None:
        # The grid only. Free text (descrip, aux_file, extensions) may name the patient and does not describe a map.
        for name in ("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
                     "srow_x", "srow_y", "srow_z", "xyzt_units"):  # fmt: skip
            header[name] = source[name]
        header["pixdim"][:5] = source["pixdim"][:5]
    else:
        header.set_sform(like.affine, code=1)
        header["pixdim"][1:4] = like.spacing
        header.set_xyzt_units("mm")
    target = _with_suffix(path, ".nii.gz")
    with replacing(target) as temporary:
        # affine=None: nibabel would otherwise rewrite the forms; a file without them must stay without.
        (Nifti2Image if two else Nifti1Image)(array, None, header).to_filename(temporary)
    return target
