"""Folders of one request, made only when they are needed: most requests never touch the disk."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

# Errors of a full disk, or of one that gives this user no more room.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    """Whether the disk had no room. HDF5 reports that in its text only."""
    return error.errno in NO_ROOM or os.strerror(errno.ENOSPC) in str(error)


@asynccontextmanager
async def scratch_folder(parent: Path) -> AsyncIterator[Path]:
    """A new path in ``parent`` where `ensure_folder` may make a folder. On exit it is removed with its content."""
    folder = parent / f"scpalm-{uuid4().hex}"
    try:
        yield folder
    finally:
        if folder.exists():
            # In a thread: freeing a file of gigabytes takes a while. It goes on if this task is cancelled.
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def ensure_folder(folder: Path) -> Path:
    """Make the folder if it does not exist, readable by this user only, and return it."""
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder
