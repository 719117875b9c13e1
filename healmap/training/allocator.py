"""Memory that stays with the process while it trains on a processor."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of glibc's malloc.h: how many blocks mmap may give, from which size on, and how many free bytes at the heap's end go back.
# The values are its defaults; the last two as they stand once large blocks have been freed, for they adapt.
_M_MMAP_MAX, _MMAP_MAX = -4, 65536
_M_MMAP_THRESHOLD, _MMAP_THRESHOLD = -3, 32 * 2**20
_M_TRIM_THRESHOLD, _TRIM_THRESHOLD = -1, 64 * 2**20
_NEVER = 2**31 - 1


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """While open, large blocks that are freed are used again instead of going back to the system.

    By default every block over 32 MB is asked of the system and returned to it, page by page: adding two tensors of 134 MB
    takes 64 ms instead of 7. A training step makes dozens of such tensors. The process holds its peak of memory meanwhile.
    Without effect where the C library is not glibc.
    """
    mallopt = _mallopt()
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        mallopt(_M_MMAP_MAX, _MMAP_MAX)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        ctypes.CDLL(None).malloc_trim(0)  # what was kept goes back now


def _mallopt() -> ctypes._NamedFuncPointer | None:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  other C libraries lack it, and mean other things by mallopt
        return library.mallopt
    except (OSError, AttributeError, TypeError):
        return None
