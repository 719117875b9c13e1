"""No mutated file may crash, hang or raise anything but our own errors. Also shows that the harness itself can fail."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile
from dicom_files import SYNTAXES, make

FUZZ = Path(__file__).with_name("fuzz.py")
RNG = np.random.default_rng(3)


@pytest.fixture(scope="session")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small file per format, syntax and trait, and the small shared samples where they are present."""
    from tests.conftest import SHARED

    folder = tmp_path_factory.mktemp("seeds")
    grey = RNG.integers(0, 4096, (48, 48)).astype(np.uint16)
    colour = RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8)
    for name in SYNTAXES:
        place = {"PixelSpacing": [1, 1], "ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        values = {"RescaleSlope": 1, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 80}
        make(folder / f"grey-{name}.dcm", grey, name, bits=12, **place, **values)
        make(folder / f"colour-{name}.dcm", np.stack([colour] * 2), name, photometric="RGB", frames=2)
    for order in "<>":
        for kind, suffix in ((nib.Nifti1Image, "1"), (nib.Nifti2Image, "2")):
            header = kind.header_class(endianness=order)
            volume = kind(RNG.integers(0, 900, (16, 17, 9)).astype(f"{order}i2"), np.diag([2.0, 2, 3, 1]), header)
            (folder / f"nifti{suffix}{'le' if order == '<' else 'be'}.nii").write_bytes(volume.to_bytes())
            (folder / f"nifti{suffix}{'le' if order == '<' else 'be'}.nii.gz").write_bytes(gzip.compress(volume.to_bytes()))
    for name, array in {"grey": grey, "byte": colour[..., 0], "colour": colour}.items():
        PIL.Image.fromarray(array).save(folder / f"{name}.png")
        tifffile.imwrite(folder / f"{name}.tif", array, photometric="rgb" if array.ndim == 3 else "minisblack")
        tifffile.imwrite(
            folder / f"{name}-zip.tif", array, compression="zlib", photometric="rgb" if array.ndim == 3 else "minisblack"
        )
    tifffile.imwrite(folder / "float-be.tif", grey.astype("f4"), byteorder=">")
    tifffile.imwrite(folder / "big.tif", np.stack([grey] * 3), bigtiff=True, photometric="minisblack")
    for compression in ("tiff_lzw", "jpeg", "packbits", "group4"):
        picture = PIL.Image.fromarray(colour[..., 0])
        (picture.convert("1") if compression == "group4" else picture).save(
            folder / f"{compression}.tif", compression=compression
        )
    PIL.Image.fromarray(colour).quantize(16).save(folder / "palette.png")
    PIL.Image.fromarray(RNG.integers(0, 65536, (9, 9), dtype=np.uint16)).save(folder / "deep.png")
    for name, array in {"grey": colour[..., 0], "colour": colour}.items():
        buffer = io.BytesIO()
        PIL.Image.fromarray(array).save(buffer, format="JPEG", progressive=name == "grey")
        (folder / f"{name}.jpg").write_bytes(buffer.getvalue())
    if (SHARED / "data").is_dir():
        for path in sorted((SHARED / "data").glob("*_samples/**/*")):
            if path.suffix in (".dcm", ".nii", ".gz") and path.stat().st_size < 200_000 and "brain" not in str(path):
                (folder / f"shared-{path.parent.name}-{path.name}").write_bytes(path.read_bytes())
    return folder


def fuzz(seeds: Path, start: int, count: int, program: Path = FUZZ) -> dict:
    done = subprocess.run(
        [sys.executable, str(program), str(seeds), str(start), str(count)], capture_output=True, text=True, timeout=3600
    )
    lines = done.stdout.splitlines()
    last = next((line for line in reversed(lines) if line.isdigit()), "none")
    assert done.returncode == 0, f"the process ended with {done.returncode} at file {last}: {done.stderr[-2000:]}"
    return json.loads(lines[-1].removeprefix("REPORT "))


def judge(report: dict, count: int) -> None:
    print(report["outcomes"], f"longest {report['longest']:.2f} s, peak {report['peak_mb']} MB")
    assert report["findings"] == []
    typed = {key: n for key, n in report["outcomes"].items() if key != "native decoder crashed"}
    assert sum(typed.values()) == count
    assert 0.05 < typed["read"] / count < 0.9  # a harness that destroys everything, or nothing, tests nothing
    assert report["peak_mb"] < 1024


def test_mutated_files(seeds: Path) -> None:
    judge(fuzz(seeds, 0, 1500), 1500)


@pytest.mark.slow
def test_twenty_thousand_mutated_files(seeds: Path) -> None:
    judge(fuzz(seeds, 10_000, 20_000), 20_000)


@pytest.mark.parametrize("fault", ["os.kill(os.getpid(), 11)", "raise KeyError('x')", "time.sleep(6)"])
def test_the_harness_notices_a_crash_an_untyped_error_and_a_hang(seeds: Path, tmp_path: Path, fault: str) -> None:
    program = tmp_path / "broken.py"
    reader = f"    def read_image(path):\n        import os\n        {fault}\n\n"
    program.write_text(FUZZ.read_text().replace("    files = sorted", reader + "    files = sorted"))
    with pytest.raises(AssertionError):
        judge(fuzz(seeds, 0, 1, program), 1)
