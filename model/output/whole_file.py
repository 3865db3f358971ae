"""Atomic output files: a file appears complete or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_when_whole(target: Path) -> Iterator[Path]:
    """Yield a temporary path to write to; it replaces ``target`` if the block succeeds. Raises OSError."""
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    # A private folder avoids name clashes, and the file in it gets the default permissions.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".scpalm-") as folder:
        partial = Path(folder, "partial")
        yield partial
        os.replace(partial, target)
