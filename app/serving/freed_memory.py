"""Give memory that was freed back to the system."""

from __future__ import annotations

import ctypes


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
