"""Keep the memory of the process small: give back what was freed, and split it among few heaps."""

from __future__ import annotations

import ctypes
import os

# Of malloc.h.
_M_ARENA_MAX = -8
_ARENAS = 2


def use_few_arenas() -> bool:
    """Let the threads of this process share two heaps of glibc. Call it early; ``MALLOC_ARENA_MAX`` overrides it.

    With a heap for each thread, replaced models leave more pieces behind: 672 MB after seven swaps of the model, 618 MB
    with two heaps (docs/explain/measurements.md). Returns whether the system supports it.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return False
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS))
    except (AttributeError, OSError, TypeError):  # another C library
        return False


def return_freed_memory() -> bool:
    """Ask glibc to return freed memory, which it otherwise keeps in pieces between live ones. Blocks for milliseconds.

    A model that was replaced leaves hundreds of megabytes of such pieces. Returns whether the system supports it.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library
        return False
    trim(0)
    return True
