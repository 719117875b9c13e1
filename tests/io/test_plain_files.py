"""PNG, JPEG and TIFF keep their values; what is changed says so; what cannot be kept is refused."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from healmap.errors import DataError, DecoderMissingError, GeometryError, UnreadableError
from healmap.io import Image, find_images, kind_of, pixel_hash, read_image, write_map, write_png

RNG = np.random.default_rng(5)
GREY8 = RNG.integers(0, 256, (20, 31), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (20, 31), dtype=np.uint16)
RGB8 = RNG.integers(0, 256, (20, 31, 3), dtype=np.uint8)
RGB16 = RNG.integers(0, 65536, (20, 31, 3), dtype=np.uint16)
FLOAT = RNG.normal(size=(20, 31)).astype(np.float32)


def save(path: Path, array: np.ndarray, **options) -> Path:
    PIL.Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("array", [GREY8, GREY16, RGB8], ids=["grey8", "grey16", "rgb8"])
def test_png_comes_out_as_stored(tmp_path: Path, array: np.ndarray) -> None:
    image = read_image(save(tmp_path / "a.png", array))
    assert image.array.dtype == array.dtype
    np.testing.assert_array_equal(image.array, array)
    assert (image.kind, image.colour, image.geometry, image.slice_axis) == ("png", array.ndim == 3, None, None)


TIFF = {
    "grey8": GREY8,
    "grey16": GREY16,
    "rgb8": RGB8,
    "rgb16": RGB16,
    "float32": FLOAT,
    "float64": FLOAT.astype(float),
    "signed": GREY16.astype(np.int16),
    "int32": GREY16.astype(np.int32) * 9,
    "big-endian": GREY16.astype(">u2"),
}


@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
@pytest.mark.parametrize("name", TIFF)
def test_tiff_comes_out_as_stored(tmp_path: Path, name: str, compression: str | None) -> None:
    array = TIFF[name]
    photometric = "rgb" if array.ndim == 3 else "minisblack"
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        compression=compression,
        photometric=photometric,
        predictor=compression == "zlib" and array.dtype.kind != "f",
    )
    image = read_image(tmp_path / "a.tif")
    assert image.array.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(image.array, array)


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate"])
@pytest.mark.parametrize("array", [GREY8, GREY16, RGB8, FLOAT], ids=["grey8", "grey16", "rgb8", "float"])
def test_tiff_compressions_left_to_pillow(tmp_path: Path, array: np.ndarray, compression: str) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.tif", array, compression=compression)).array, array)


def test_a_tiff_compression_nobody_here_decodes_is_named(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", GREY8)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    at = data.index(struct.pack("<HHIH", 259, 3, 1, 1))
    data[at + 8 : at + 10] = struct.pack("<H", 34712)  # JPEG 2000
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DecoderMissingError, match="JPEG2000 needs the package imagecodecs"):
        read_image(tmp_path / "a.tif")


def test_tiff_in_parts_and_upside_down(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "planar.tif", np.moveaxis(RGB16, -1, 0), planarconfig="separate", photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "planar.tif").array, RGB16)
    tifffile.imwrite(tmp_path / "tiles.tif", GREY16, tile=(16, 16))
    np.testing.assert_array_equal(read_image(tmp_path / "tiles.tif").array, GREY16)
    tifffile.imwrite(tmp_path / "white.tif", GREY16, photometric="miniswhite")
    image = read_image(tmp_path / "white.tif")
    np.testing.assert_array_equal(image.array, 65535 - GREY16)
    assert any("inverted" in note for note in image.notes)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([GREY8, GREY8 + 1]), photometric="minisblack")
    image = read_image(tmp_path / "pages.tif")
    assert (image.shape, image.slice_axis) == ((2, 20, 31), 0)
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as writer:
        writer.write(GREY8, photometric="minisblack")
        writer.write(GREY16, photometric="minisblack")
    with pytest.raises(UnreadableError, match="pages"):
        read_image(tmp_path / "mixed.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_what_is_changed_says_so(tmp_path: Path, suffix: str) -> None:
    bits = GREY8 > 100
    image = read_image(save(tmp_path / f"bit{suffix}", bits))
    np.testing.assert_array_equal(image.array, bits * 255)
    assert any("one bit" in note for note in image.notes)
    with_alpha = np.dstack([RGB8, GREY8])
    image = read_image(save(tmp_path / f"alpha{suffix}", with_alpha))
    np.testing.assert_array_equal(image.array, RGB8)
    assert any("alpha" in note for note in image.notes)
    palette = PIL.Image.fromarray(RGB8).quantize(32)
    palette.save(tmp_path / f"palette{suffix}")
    image = read_image(tmp_path / f"palette{suffix}")
    np.testing.assert_array_equal(image.array, np.array(palette.convert("RGB")))
    assert any("palette" in note for note in image.notes)


def test_jpeg(tmp_path: Path) -> None:
    smooth = (np.add.outer(np.arange(64), np.arange(64)) * 2).astype(np.uint8)
    image = read_image(save(tmp_path / "a.jpg", smooth, quality=95))
    assert np.abs(image.array.astype(int) - smooth).max() <= 4
    assert not image.colour
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = read_image(save(tmp_path / "b.jpg", smooth[:32], quality=95, exif=exif))
    assert image.shape == (32, 64)
    assert any("EXIF" in note for note in image.notes)


def test_sixteen_bit_colour_png_is_refused_and_not_halved(tmp_path: Path) -> None:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RGB16)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 31, 20, 16, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    with pytest.raises(UnreadableError, match="16-bit TIFF"):
        read_image(tmp_path / "a.png")


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    save(tmp_path / "really.jpg", GREY8, format="PNG")
    assert kind_of(tmp_path / "really.jpg") == "png"
    np.testing.assert_array_equal(read_image(tmp_path / "really.jpg").array, GREY8)
    (tmp_path / "text.png").write_text("no picture")
    assert kind_of(tmp_path / "text.png") is None


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_a_file_cut_anywhere_is_an_error_or_whole(tmp_path: Path, suffix: str) -> None:
    """No reader may fill up what is missing."""
    smooth = (np.add.outer(np.arange(64), np.arange(64)) * 2).astype(np.uint8)
    data = save(tmp_path / f"whole{suffix}", smooth).read_bytes()
    whole = read_image(tmp_path / f"whole{suffix}").array
    cut = tmp_path / f"cut{suffix}"
    for length in range(1, len(data), max(1, len(data) // 60)):
        cut.write_bytes(data[:length])
        with suppress(UnreadableError):
            np.testing.assert_array_equal(read_image(cut).array, whole)


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.png", "a.PNG", "sub/c.tif", ".hidden.png", ".dir/d.png", "sub/deep/e.jpg"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        save(path, GREY8, format={"tif": "TIFF", "jpg": "JPEG"}.get(path.suffix[1:], "PNG"))
    save(tmp_path / "unnamed", GREY8, format="PNG")
    (tmp_path / "labels.csv").write_text("path,label\n")
    (tmp_path / "notes").write_text("hello")
    (tmp_path / "sub" / "loop").symlink_to(tmp_path)
    odd = tmp_path / "new\nline \udcff.png"
    save(tmp_path / "x", GREY8, format="PNG").rename(odd)
    found = [str(path.relative_to(tmp_path)) for path in find_images(tmp_path)]
    assert found == ["a.PNG", "b.png", "new\nline \udcff.png", "sub/c.tif", "sub/deep/e.jpg", "unnamed"]
    with pytest.raises(UnreadableError, match="not a folder"):
        find_images(tmp_path / "absent")


def test_maps_of_planes_and_pictures(tmp_path: Path) -> None:
    import json

    like = Image(GREY8, "png")
    values = RNG.normal(size=(20, 31)).astype(np.float32) * 40
    path = write_map(tmp_path / "case.1", values, like)
    key = json.loads((tmp_path / "case.1.json").read_text())
    assert path.name == key["file"] == "case.1.png"
    pixels = read_image(path).array
    assert pixels.dtype == np.uint16
    assert np.abs(key["offset"] + key["scale"] * pixels - values).max() <= key["scale"] * 0.51
    np.testing.assert_array_equal(np.load(write_map(tmp_path / "b", values, like, form="npy")), values)
    flat = read_image(write_map(tmp_path / "flat", np.full((20, 31), 7, np.float32), like)).array
    assert flat.max() == 0
    volume = Image(np.zeros((3, 4, 5)), "tiff", slice_axis=0)
    assert write_map(tmp_path / "v", np.zeros((3, 4, 5)), volume).name == "v.npy"
    with pytest.raises(GeometryError):
        write_map(tmp_path / "c", values[1:], like)
    with pytest.raises(DataError, match="not numbers"):
        write_map(tmp_path / "c", values * np.nan, like)
    for array in (GREY8, RGB8):
        np.testing.assert_array_equal(read_image(write_png(tmp_path / "p.png", array)).array, array)
    with pytest.raises(DataError):
        write_png(tmp_path / "p.png", GREY16)
    assert not list(tmp_path.glob(".healmap*"))


def test_equal_pictures_have_equal_hashes_whatever_their_storage() -> None:
    small = RNG.integers(0, 200, (7, 9))
    same = [small.astype(t) for t in ("u1", "i2", ">i2", "<u4", "i8")] + [np.asfortranarray(small), small[::-1][::-1]]
    assert len({pixel_hash(array) for array in same}) == 1
    other = [small + 1, small.T, small.reshape(-1), small.astype(float), small - 100, small * 300]
    assert len({pixel_hash(array) for array in [small, *other]}) == 1 + len(other)
    floats = RNG.normal(size=(4, 4)).astype(np.float32)
    assert pixel_hash(floats) == pixel_hash(floats.astype(">f8")) == pixel_hash(floats.astype(np.float64))
    assert pixel_hash(floats.astype(np.float64) + 1e-12) != pixel_hash(floats)
    assert pixel_hash(np.zeros((0, 3))) != pixel_hash(np.zeros((3, 0)))
    assert pixel_hash(np.array([0.0])) == pixel_hash(np.array([-0.0]))
