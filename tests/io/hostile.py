"""Files that ask for far more than they are. ``python hostile.py make FOLDER`` makes them all, ``read`` reads them in turn."""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np


def nifti_header(shape: tuple[int, ...], datatype: int = 4, offset: float = 352) -> bytes:
    import nibabel as nib

    header = nib.Nifti1Header()
    header["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
    header["datatype"], header["bitpix"], header["vox_offset"], header["magic"] = datatype, 16, offset, b"n+1"
    return header.binaryblock + bytes(4)


def zeros(packer: zlib._Compress, megabytes: int) -> bytes:
    block = bytes(1 << 20)
    return b"".join(packer.compress(block) for _ in range(megabytes)) + packer.flush()


def gz_nifti() -> bytes:
    """1024^3 int16 zeros: over the number of voxels. (The zeros are fewer here: nobody may get as far as counting them.)"""
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(nifti_header((1024, 1024, 1024))) + zeros(packer, 300)


def gz_nifti_ratio() -> bytes:
    """Within the number of voxels, but a thousand times its file."""
    packer = zlib.compressobj(9, wbits=31)
    return packer.compress(nifti_header((512, 512, 2000))) + zeros(packer, 100)


def gz_promise() -> bytes:
    """A header that promises a gigabyte, and nothing behind it (4 MB of noise keep the ratio)."""
    return gzip.compress(nifti_header((512, 512, 1000)) + np.random.default_rng(0).bytes(4 << 20))


def gz_skip() -> bytes:
    """The voxels are said to begin after gigabytes of zeros."""
    return gzip.compress(nifti_header((2, 2, 2), offset=2e9) + bytes(1 << 24))


def nifti_promise() -> bytes:
    return nifti_header((32767, 32767, 32767))


def dicom_bytes(syntax: str = "explicit", **tags: object) -> bytes:
    import pydicom
    from dicom_files import dataset, save

    path = Path(sys.argv[2], "seed.dcm")
    save(path, dataset(np.zeros((64, 64), np.uint16)), syntax)
    ds = pydicom.dcmread(path)
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds)
    return out.getvalue()


def deflated_dicom() -> bytes:
    """400 MB of zeros in the pixel element."""
    whole = dicom_bytes("deflated")
    start = 144 + struct.unpack("<I", whole[140:144])[0]
    packer = zlib.compressobj(1, wbits=-15)
    inner = zlib.decompress(whole[start:], -15)[:-8200] + b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", 400 << 20)
    return whole[:start] + packer.compress(inner) + zeros(packer, 400)


def rle_dicom(rows: int = 16384) -> bytes:
    from pydicom.encaps import encapsulate

    segment = b"\x81\x00" * (rows * rows // 128)
    frame = struct.pack("<16I", 2, 64, 64 + len(segment), *[0] * 13) + segment * 2
    return dicom_bytes("rle", Rows=rows, Columns=rows, PixelData=encapsulate([frame]))


def jpeg2000_lies() -> bytes:
    """A code stream of 60,000 x 60,000 in an image of 64 x 64."""
    data = bytearray(dicom_bytes("jpeg-2000"))
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = struct.pack(">II", 60000, 60000)
    return bytes(data)


def dicom_declares() -> bytes:
    return dicom_bytes(Rows=65535, Columns=65535)


def dicom_frames() -> bytes:
    return dicom_bytes(NumberOfFrames=2_000_000_000)


def dicom_nested() -> bytes:
    """Sequences in sequences, 20,000 deep, of undefined length."""
    return dicom_bytes()[:-8204] + (b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff") * 20_000


def png_large() -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(12001)) for _ in range(12000)) + packer.flush()
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 12000, 12000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


def png_text() -> bytes:
    """A comment that inflates to 128 MB."""
    import PIL.Image

    buffer = io.BytesIO()
    PIL.Image.new("L", (8, 8)).save(buffer, format="PNG")
    png, body = buffer.getvalue(), b"k\0\0" + zlib.compress(bytes(1 << 27), 1)
    text = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return png[:33] + text + png[33:]


def tiff_declares() -> bytes:
    import tifffile

    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((16, 16), np.uint8))
    data = bytearray(out.getvalue())
    for tag in (256, 257, 278):
        at = data.index(struct.pack("<HH", tag, 4 if struct.pack("<HH", tag, 4) in data else 3))
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 60000)
    return bytes(data)


def tiff_zip() -> bytes:
    """8000 x 8000 x 3 x float64 zeros: within 64 MP, 1.5 GB, deflated to 1.5 MB."""
    import tifffile

    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((64, 64, 3), np.float64), compression="zlib", photometric="rgb", rowsperstrip=64)
    data = bytearray(out.getvalue())
    for tag in (256, 257, 278):
        key = next(struct.pack("<HH", tag, kind) for kind in (3, 4) if struct.pack("<HH", tag, kind) in data)
        at = data.index(key)
        data[at : at + 12] = struct.pack("<HHII", tag, 4, 1, 8000)
    return bytes(data)


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "gz-nifti": (gz_nifti, ".nii.gz"), "gz-nifti-ratio": (gz_nifti_ratio, ".nii.gz"), "gz-promise": (gz_promise, ".nii.gz"),
    "gz-skip": (gz_skip, ".nii.gz"), "nifti-promise": (nifti_promise, ".nii"), "deflated-dicom": (deflated_dicom, ".dcm"),
    "rle-dicom": (rle_dicom, ".dcm"), "jpeg2000-lies": (jpeg2000_lies, ".dcm"), "dicom-declares": (dicom_declares, ".dcm"),
    "dicom-frames": (dicom_frames, ".dcm"), "dicom-nested": (dicom_nested, ".dcm"), "png-large": (png_large, ".png"),
    "png-text": (png_text, ".png"), "tiff-declares": (tiff_declares, ".tif"), "tiff-zip": (tiff_zip, ".tif"),
}  # fmt: skip


def memory() -> float:
    """The process's own peak in MB since it began (children not counted)."""
    # ru_maxrss would begin at the peak of the process that started this one.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    folder = Path(sys.argv[2])
    if sys.argv[1] == "make":
        for name, (make, suffix) in BOMBS.items():
            (folder / f"{name}{suffix}").write_bytes(make())
        return
    from dicom_files import dataset, save

    from healmap.errors import HealError
    from healmap.io import find_images, read_image

    read_image(save(folder / "seed.dcm", dataset(np.zeros((8, 8), np.uint16))))  # imports are not the files' fault
    idle, reports = memory(), {}
    for name, (_, suffix) in BOMBS.items():
        began = time.monotonic()
        try:
            read_image(folder / f"{name}{suffix}")
            outcome = "read"
        except HealError as error:
            outcome = type(error).__name__
        reports[name] = {"outcome": outcome, "seconds": time.monotonic() - began, "mb": memory() - idle}
    began = time.monotonic()
    find_images(folder)
    reports["the whole folder listed"] = {"outcome": "listed", "seconds": time.monotonic() - began, "mb": memory() - idle}
    print(json.dumps(reports))


if __name__ == "__main__":
    main()
