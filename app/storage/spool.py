"""Where payloads lie that are too large for Redis: a folder that every process sees, or an object store, by fsspec."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import fsspec

from scpalm.app.errors import ServiceError, StorageFullError

# Payloads up to this travel through Redis.
INLINE_BYTES = 1 << 20
# No payload is needed so long: whoever waited for it has hung up.
KEEP_SECONDS = 24 * 3600.0
_NAME = re.compile(r"[0-9a-f]{32}")


class SpoolError(ServiceError):
    """A payload that cannot be kept or found."""

    status, code, title = 503, "spool", "The spool of payloads cannot be used"


class Spool:
    """Payloads by random names under one address, such as ``/shared/spool`` or ``s3://bucket/scpalm``.

    Blocking; safe between threads. Raises SpoolError where the address cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._files, self._root = fsspec.core.url_to_fs(url)
            self._files.makedirs(self._root, exist_ok=True)
        except ImportError as error:
            raise SpoolError(f"SCPALM_SPOOL_URL={_shown(url)} needs another package: {error}.") from error
        except Exception as error:  # each kind of store has its own
            raise SpoolError(f"SCPALM_SPOOL_URL={_shown(url)} cannot be used: {_line(error)}") from error

    @property
    def files(self) -> tuple[Any, str]:
        """The file system, and the path of this spool in it."""
        return self._files, str(self._root)

    @property
    def folder(self) -> Path | None:
        """Where the spool is a folder of this machine, perhaps a shared one."""
        return Path(self._root) if _is_local(self._files) else None

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise SpoolError("The message names no payload of the spool.")
        return f"{self._root}/{name}"

    def put(self, content: bytes) -> str:
        """The name under which it can be read, once it is there as a whole. Raises SpoolError, StorageFullError."""
        name = uuid4().hex
        path = self._path(name)
        try:
            if _is_local(self._files):
                # Seen by others under its name only when it is whole.
                partial = Path(f"{path}.partial")
                partial.write_bytes(content)
                partial.rename(path)
            else:
                self._files.pipe_file(path, content)
        except Exception as error:
            if isinstance(error, OSError) and error.errno == 28:  # ENOSPC
                raise StorageFullError(f"The spool {_shown(self.url)} is full.", retry_after=10) from error
            raise SpoolError(f"The spool {_shown(self.url)} takes nothing: {_line(error)}", retry_after=5) from error
        return name

    def get(self, name: str) -> bytes:
        """Raises SpoolError."""
        try:
            return cast(bytes, self._files.cat_file(self._path(name)))
        except SpoolError:
            raise
        except Exception as error:
            raise SpoolError(
                f"A payload is not in the spool {_shown(self.url)} ({_line(error)}). Every process must see the same "
                "one: set SCPALM_SPOOL_URL alike."
            ) from error

    def remove(self, name: str) -> None:
        """Forget a payload; one that is gone is none of our business."""
        try:
            self._files.rm_file(self._path(name))
        except Exception:  # it will be swept
            return

    def sweep(self, keep_seconds: float = KEEP_SECONDS) -> int:
        """Remove what nobody has come for; how many."""
        removed = 0
        try:
            entries: list[dict[str, Any]] = self._files.ls(self._root, detail=True)
        except Exception:
            return 0
        for entry in entries:
            changed = entry.get("mtime") or entry.get("LastModified")
            changed = changed.timestamp() if isinstance(changed, datetime) else changed
            name = str(entry["name"]).rpartition("/")[2]
            if changed and time.time() - float(changed) > keep_seconds and _NAME.match(name):
                try:
                    self._files.rm_file(entry["name"])
                    removed += 1
                except Exception:  # another process was faster
                    continue
        return removed


def _is_local(files: Any) -> bool:
    return "file" in ((files.protocol,) if isinstance(files.protocol, str) else files.protocol)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _shown(url: str) -> str:
    """The address without a password in it."""
    return re.sub(r"//[^/@]*@", "//", url)
