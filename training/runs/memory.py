"""Keep freed memory in the process."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # glibc's limit
_KEPT = 2**30


def keep_freed_memory() -> bool:
    """Keep up to 1 GiB of freed memory for the arrays of the next step. Returns whether the system supports it.

    By default glibc returns arrays of a batch's size to the system at every step, and the next step's are cleared page
    by page again. That takes half of the loader's time (training/LOG.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)) and bool(mallopt(_M_TRIM_THRESHOLD, _KEPT))
