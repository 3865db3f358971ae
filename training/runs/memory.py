"""How the process treats memory that it has freed."""

from __future__ import annotations

import ctypes

# Of mallopt(3), glibc's.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc refuses more
_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Keep up to 1 GiB of freed memory for the arrays of the next step. Returns whether this system can.

    By default glibc gives arrays of a batch's size back to the system at every step, and the next step's are cleared
    page by page again: half of the loader's time (training/README.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
