"""Folders of one request, made only when they are needed: most requests never touch the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A new path in ``parent`` where `ensure_folder` may make a folder. On exit it is removed with its content."""
    folder = parent / f"scpalm-{uuid4().hex}"
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)


def ensure_folder(folder: Path) -> Path:
    """Make the folder if it does not exist, readable by this user only, and return it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
