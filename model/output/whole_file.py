"""Output files that appear whole or not at all, and never in the way of another file."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_when_whole(target: Path) -> Iterator[Path]:
    """A new path to write to; it becomes ``target`` when the block ends without an error. Raises OSError."""
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target.parent))
    # A folder of our own: no name in it is anybody else's, and the file gets the usual permissions.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".scpalm-") as folder:
        partial = Path(folder, "partial")
        yield partial
        os.replace(partial, target)
