"""Keeps payloads that are too large for Redis: in a folder that every process sees, or in an object store (fsspec)."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import fsspec

from scpalm.app.errors import ServiceError, StorageFullError
from scpalm.app.storage.scratch import NO_ROOM
from scpalm.app.storage.urls import without_password

# Payloads up to this size travel through Redis.
INLINE_BYTES = 1 << 20
# Older payloads are swept: their readers are gone.
KEEP_SECONDS = 24 * 3600.0
_NAME = re.compile(r"[0-9a-f]{32}")


class SpoolError(ServiceError):
    """The spool cannot be used, or a payload cannot be kept or found."""

    status, code, title = 503, "spool", "The spool of payloads cannot be used"


class Spool:
    """Payloads by random names under one URL, such as ``/shared/spool`` or ``s3://bucket/scpalm``.

    Blocking; safe between threads. Raises SpoolError when the URL cannot be used.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._filesystem, self._root = fsspec.core.url_to_fs(url)
            self._filesystem.makedirs(self._root, exist_ok=True)
        except ImportError as error:
            raise SpoolError(f"SCPALM_SPOOL_URL={self._shown} needs another package: {error}.") from error
        except Exception as error:  # each kind of store has its own errors
            raise SpoolError(f"SCPALM_SPOOL_URL={self._shown} cannot be used: {_line(error)}") from error

    @property
    def filesystem(self) -> tuple[Any, str]:
        """The fsspec file system, and the path of this spool in it."""
        return self._filesystem, str(self._root)

    @property
    def folder(self) -> Path | None:
        """The spool's folder, when it is a local or mounted one; else None."""
        return Path(self._root) if _is_local(self._filesystem) else None

    @property
    def _shown(self) -> str:
        return without_password(self.url)

    def _path(self, name: str) -> str:
        if not _NAME.fullmatch(name):
            raise SpoolError("The message does not name a payload of the spool.")
        return f"{self._root}/{name}"

    def put(self, content: bytes) -> str:
        """Keep a payload and return its name. Raises SpoolError, StorageFullError."""
        name = uuid4().hex
        path = self._path(name)
        try:
            if _is_local(self._filesystem):
                # Other processes see the file under its name only when it is complete.
                partial = Path(f"{path}.partial")
                try:
                    partial.write_bytes(content)
                    partial.rename(path)
                except BaseException:
                    partial.unlink(missing_ok=True)
                    raise
            else:
                self._filesystem.pipe_file(path, content)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise StorageFullError(f"The spool {self._shown} is full.", retry_after=10) from error
            raise SpoolError(f"The spool {self._shown} cannot be written: {_line(error)}", retry_after=5) from error
        return name

    def get(self, name: str) -> bytes:
        """The payload of this name. Raises SpoolError."""
        try:
            return cast(bytes, self._filesystem.cat_file(self._path(name)))
        except SpoolError:
            raise
        except Exception as error:
            raise SpoolError(
                f"A payload is not in the spool {self._shown} ({_line(error)}). Every process must use the same spool: "
                "set SCPALM_SPOOL_URL to one value."
            ) from error

    def remove(self, name: str) -> None:
        """Remove a payload; one that is missing already is no error."""
        try:
            self._filesystem.rm_file(self._path(name))
        except Exception:  # a later sweep removes it
            return

    def sweep(self, keep_seconds: float = KEEP_SECONDS) -> int:
        """Remove payloads older than this; returns how many."""
        removed = 0
        try:
            entries: list[dict[str, Any]] = self._filesystem.ls(self._root, detail=True)
        except Exception:
            return 0
        for entry in entries:
            changed = entry.get("mtime") or entry.get("LastModified")
            changed = changed.timestamp() if isinstance(changed, datetime) else changed
            name = str(entry["name"]).rpartition("/")[2]
            if changed and time.time() - float(changed) > keep_seconds and _NAME.match(name):
                try:
                    self._filesystem.rm_file(entry["name"])
                    removed += 1
                except Exception:  # another process removed it first
                    continue
        return removed


def _is_local(filesystem: Any) -> bool:
    return "file" in ((filesystem.protocol,) if isinstance(filesystem.protocol, str) else filesystem.protocol)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
