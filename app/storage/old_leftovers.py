"""Removes the temporary folders that releases without `ProcessFolder` left when they were killed.

They have no lock, so it is unknown whether their process lives: it may be an old release that still serves during a
rolling upgrade. Each folder gets a mark when it is first seen, and is removed a day later.
"""

from __future__ import annotations

import contextlib
import logging
import re
import shutil
import time
from pathlib import Path

log = logging.getLogger("scpalm.storage")

KEEP_SECONDS = 24 * 3600.0
# Copies of models, and files of jobs of a service without SCPALM_RESULTS_DIR.
_FOLDER = re.compile(r"scpalm-(model|jobs)-[a-z0-9_]{8}")
_SEEN = "-seen"


def remove_old_leftovers(parent: Path) -> int:
    """Remove the folders in ``parent`` that were first seen a day ago, and mark the others; returns how many. Blocking.

    A folder that cannot be marked or removed, such as another user's, is left.
    """
    removed, now = 0, time.time()
    for folder in parent.glob("scpalm-*"):
        mark = folder.with_name(folder.name + _SEEN)
        with contextlib.suppress(OSError):
            if _FOLDER.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
                if not mark.exists():
                    mark.touch()
                elif now - mark.stat().st_mtime > KEEP_SECONDS:
                    shutil.rmtree(folder)
                    removed += 1
                    log.info("removed %s, which an older release had left", folder)
    for mark in parent.glob(f"scpalm-*{_SEEN}"):
        if not mark.with_name(mark.name.removesuffix(_SEEN)).exists():
            with contextlib.suppress(OSError):
                mark.unlink(missing_ok=True)
    return removed
