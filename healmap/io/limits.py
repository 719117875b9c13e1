"""What a file may ask for, and the one place where foreign parsers' exceptions become our own."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import HealError, TooLargeError, UnreadableError


@dataclass(frozen=True)
class Limits:
    """Upper bounds, checked against headers before memory is taken. Raise them for a trusted file that is truly that large."""

    pixels: int = 64 * 1024**2  # per plane: 8192 x 8192
    voxels: int = 512 * 1024**2  # per volume, all time points and samples counted
    file_bytes: int = 2 * 1024**3  # of the file as it lies on the disk
    ratio: float = 200.0  # decompressed over compressed bytes ...
    ratio_from: int = 256 * 1024**2  # ... looked at only above this many decompressed bytes: masks are mostly zeros

    def check_file(self, path: Path) -> int:
        """The file's size in bytes. Anything but a plain file is refused: opening a pipe would wait for ever."""
        try:
            status = os.stat(path)
        except (OSError, ValueError) as error:  # ValueError: a null byte in the name
            reason = getattr(error, "strerror", "") or "bad name"
            raise UnreadableError("cannot open the file", where=str(path), hint=reason) from None
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableError("not a file", where=str(path))
        if status.st_size > self.file_bytes:
            what = f"the file has {status.st_size} bytes, more than {self.file_bytes}"
            raise TooLargeError(what, where=str(path), hint=_RAISE)
        if status.st_size == 0:
            raise UnreadableError("the file is empty", where=str(path))
        return status.st_size

    def check_plane(self, height: int, width: int, path: Path) -> None:
        if height < 1 or width < 1:
            raise UnreadableError(f"the header declares {height} x {width} pixels", where=str(path))
        if height * width > self.pixels:
            raise TooLargeError(f"{height} x {width} pixels are more than {self.pixels}", where=str(path), hint=_RAISE)

    def check_volume(self, shape: tuple[int, ...], path: Path) -> None:
        count = 1
        for n in shape:
            if n < 1:
                raise UnreadableError(f"the header declares the shape {_by(shape)}", where=str(path))
            count *= n
        if count > self.voxels:
            raise TooLargeError(f"{_by(shape)} values are more than {self.voxels}", where=str(path), hint=_RAISE)

    def check_ratio(self, unpacked: int, packed: int, path: Path) -> None:
        if unpacked > self.ratio_from and unpacked > self.ratio * packed:
            what = f"{packed} compressed bytes declare {unpacked}, more than {self.ratio:g} times as many"
            raise TooLargeError(what, where=str(path), hint=_RAISE)

    def most_unpacked(self, packed: int) -> int:
        """The bytes that ``packed`` compressed ones may become."""
        return int(max(self.ratio_from, self.ratio * packed))


_RAISE = "raise the limit if the file is trusted (healmap.io.Limits)"


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(str(n) for n in shape)


@contextmanager
def parsing(path: Path, what: str, *, quote: bool = True) -> Iterator[None]:
    """Around every call into a foreign parser. Whatever it raises on a damaged file comes out as ``UnreadableError``.

    ``Exception`` is caught on purpose, and only here: fuzzing pydicom, nibabel, Pillow and tifffile shows a dozen kinds
    (struct.error, KeyError, AttributeError, zlib.error, SyntaxError, ...) and no list of them is ever complete.

    Args:
        what: the format, for the message.
        quote: repeat the parser's words. Off for DICOM, whose parser quotes element values, patients' names included.
    """
    try:
        yield
    except HealError:
        raise
    except MemoryError:
        raise TooLargeError(f"not enough memory to read this {what} file", where=str(path)) from None
    except RecursionError:
        raise UnreadableError(f"damaged {what} file", where=str(path), hint="nested too deeply") from None
    except Exception as error:
        words = " ".join(str(error).split())[:160] if quote else ""
        raise UnreadableError(f"damaged {what} file", where=str(path), hint=words or type(error).__name__) from None
