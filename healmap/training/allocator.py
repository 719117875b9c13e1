"""Memory that stays with the process while it trains on a processor."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

# Of glibc's malloc.h, with its defaults: blocks given by mmap at once, and free bytes at the heap's end that are returned.
_M_MMAP_MAX, _MMAP_MAX = -4, 65536
_M_TRIM_THRESHOLD, _TRIM_THRESHOLD = -1, 128 * 1024
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
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)


def _mallopt() -> ctypes._NamedFuncPointer | None:
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version                  # noqa: B018  other C libraries lack it, and mean other things by mallopt
        return library.mallopt
    except (OSError, AttributeError, TypeError):
        return None
