"""Folders of one request, made by whoever first needs one: most requests never touch the disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A path in ``parent`` where `made` may make a folder; it is removed with all that is in it."""
    folder = parent / f"scpalm-{uuid4().hex}"
    try:
        yield folder
    finally:
        if folder.exists():
            shutil.rmtree(folder, ignore_errors=True)


def made(folder: Path) -> Path:
    """The folder, made if it is not there, for this user alone."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
