"""NIfTI-1 and NIfTI-2, single files, plain or gzipped. The header is judged before the voxels are read."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..errors import UnreadableError
from .image import Geometry, Image, is_usable
from .limits import Limits, parsing

_MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units: unknown (taken as mm, as everyone does), m, mm, µm


def read_nifti(path: Path, limits: Limits) -> Image:
    """A volume in file order: (i, j, k), with several volumes (i, j, k, t), RGB with a last axis of 3.

    Values are scaled by the header's slope and intercept (then float32); without scaling they keep their type, in native byte
    order. The affine is the sform's, else the qform's, else there is none: nothing is made up from the voxel sizes.
    """
    packed = limits.check_file(path)
    with parsing(path, "NIfTI"), open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        with gzip.GzipFile(fileobj=raw) if zipped else raw as stream:
            header = _header(stream, path)
            shape = _shape(header, path)
            dtype, samples = _dtype(header, path)
            limits.check_plane(shape[0], shape[1], path)
            limits.check_volume((*shape, samples), path)
            size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize * samples
            offset = _offset(header, path)
            limits.check_ratio(size + offset, packed, path)
            if not zipped and offset + size > packed:
                raise UnreadableError(f"the file ends after {packed} of {offset + size} bytes", where=str(path))
            _skip(stream, offset - header.structarr.dtype.itemsize)
            array = _voxels(stream, size, path).view(dtype).reshape(shape if samples == 1 else (samples, *shape), order="F")
            if zipped:
                _skip(stream, 64 * 1024**2)  # to the end, where gzip compares its checksum
        if samples > 1:
            array = np.moveaxis(array, 0, -1)
        array = _scaled(array, header, path)
        notes: list[str] = []
        geometry = _geometry(header, notes)
    if len(shape) == 4:
        notes.append(f"{shape[3]} volumes in one file")
    return Image(
        array, "nifti", geometry=geometry, slice_axis=2, colour=samples > 1, notes=tuple(notes), sources=(path,), header=header
    )


def _header(stream: BinaryIO | gzip.GzipFile, path: Path) -> Any:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    block = stream.read(348)
    for kind, length in ((Nifti1Header, 348), (Nifti2Header, 540)):
        for order in "<>":
            if len(block) >= 4 and int.from_bytes(block[:4], "little" if order == "<" else "big") == length:
                block += stream.read(length - len(block))
                header = kind(binaryblock=block, endianness=order, check=False)
                magic = bytes(header["magic"])[:2]
                if magic == b"ni":
                    raise UnreadableError(
                        "a NIfTI header without its .img file", where=str(path), hint="save it as one .nii file"
                    )
                if magic != b"n+":
                    raise UnreadableError("not a NIfTI file: the magic word is wrong (Analyze?)", where=str(path))
                return header
    raise UnreadableError("not a NIfTI file", where=str(path))


def _shape(header: Any, path: Path) -> tuple[int, ...]:
    n, *sizes = (int(d) for d in header["dim"])
    if not 1 <= n <= 7 or any(s < 1 for s in sizes[:n]):
        raise UnreadableError("the header declares no sensible shape", where=str(path))
    shape = sizes[:n]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    if len(shape) > 4 or len(shape) < 2:
        raise UnreadableError(f"a NIfTI file of {len(shape)} dimensions", where=str(path), hint="save it as 3-D volumes")
    return (*shape, 1) if len(shape) == 2 else tuple(shape)


def _dtype(header: Any, path: Path) -> tuple[np.dtype, int]:
    """The type of one sample in file order, and samples per voxel (3 for RGB, 4 for RGBA)."""
    code, order = int(header["datatype"]), header.endianness
    if code in (128, 2304):
        return np.dtype(np.uint8), 3 if code == 128 else 4
    try:
        dtype = header.get_data_dtype().newbyteorder(order)
    except Exception:
        raise UnreadableError(f"NIfTI data type {code} is unknown", where=str(path)) from None
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise UnreadableError(f"NIfTI data type {dtype} is not supported", where=str(path), hint="save it as int16 or float32")
    return dtype, 1


def _offset(header: Any, path: Path) -> int:
    offset = float(header["vox_offset"])
    least = header.structarr.dtype.itemsize
    if offset == 0:
        return least + 4
    if not least <= offset <= 64 * 1024**2 or offset != int(offset):
        raise UnreadableError(f"the voxels cannot begin at byte {offset:g}", where=str(path))
    return int(offset)


def _skip(stream: BinaryIO | gzip.GzipFile, count: int) -> None:
    while count > 0:
        got = len(stream.read(min(count, 1 << 20)))
        if not got:
            return
        count -= got


def _voxels(stream: BinaryIO | gzip.GzipFile, size: int, path: Path) -> np.ndarray:
    """``size`` bytes, taken as they come: a short file never costs the memory it only promises."""
    buffer = io.BytesIO()
    while buffer.tell() < size:
        chunk = stream.read(min(size - buffer.tell(), 1 << 24))
        if not chunk:
            raise UnreadableError(f"the voxels end after {buffer.tell()} of {size} bytes", where=str(path))
        buffer.write(chunk)
    return np.frombuffer(buffer.getbuffer(), dtype=np.uint8)


def _scaled(array: np.ndarray, header: Any, path: Path) -> np.ndarray:
    if array.ndim > 3 and array.shape[-1] == 4 and int(header["datatype"]) == 2304:
        array = array[..., :3]
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope) or (slope, inter) == (1, 0) or int(header["datatype"]) in (128, 2304):
        return native  # the standard: slope 0 means no scaling
    if not np.isfinite(inter):
        raise UnreadableError("the scaling of the NIfTI file is not a number", where=str(path))
    with np.errstate(over="ignore", invalid="ignore"):
        return (native.astype(np.float64) * slope + inter).astype(np.float32)


def _geometry(header: Any, notes: list[str]) -> Geometry | None:
    unit = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    sizes = np.abs(np.asarray(header["pixdim"][1:4], dtype=np.float64)) * unit
    affine = None
    with np.errstate(all="ignore"):
        sform = header.get_sform() if int(header["sform_code"]) > 0 else None
        try:
            qform = header.get_qform() if int(header["qform_code"]) > 0 else None
        except Exception:  # nibabel: "w2 should be positive" for a quaternion longer than 1
            qform = None
            notes.append("the qform is not a rotation and was ignored")
    for name, form in (("sform", sform), ("qform", qform)):
        if form is None:
            continue
        if not is_usable(form):
            notes.append(f"the {name} is not invertible and was ignored")
        elif affine is None:
            affine = np.diag([unit, unit, unit, 1.0]) @ form
        elif np.abs(affine - np.diag([unit, unit, unit, 1.0]) @ form).max() > 0.01:
            notes.append("qform and sform differ; the sform was taken")
    if affine is not None:
        return Geometry(affine, tuple(np.linalg.norm(affine[:3, :3], axis=0)))
    notes.append("the file states no orientation and position")
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        notes.append("the file states no voxel sizes")
        return None
    return Geometry(None, tuple(sizes))
