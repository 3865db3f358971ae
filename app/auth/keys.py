"""API keys: a JSON file with a hash of each key, read again when the file changes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scpalm.app.errors import ForbiddenError, MissingKeyError
from scpalm.model.errors import UserError

log = logging.getLogger("scpalm.keys")

_CHECK_SECONDS = 1.0


class KeysFileError(UserError, ValueError):
    """A file of API keys that cannot be used; the text says what is wrong and where, in one line."""


@dataclass(frozen=True)
class ApiKey:
    """One entry of the file.

    Attributes:
        name: of the holder; appears in logs and owns jobs.
        digests: SHA-256 of the key, hexadecimal; several while a key is being replaced.
        paths: prefixes of the paths that the key may use; empty means all.
        cells_per_minute, bytes_per_minute: budgets, see `scpalm.app.auth.budgets`; None means no limit.
        admin: whether it may see, fetch and remove the jobs of all keys.
        max_jobs: most jobs that the key may have, including ended ones whose results are kept; None means no limit.
        max_result_bytes: the key may send no more jobs while the files of its jobs take this many bytes.
    """

    name: str
    digests: tuple[str, ...]
    paths: tuple[str, ...] = ()
    cells_per_minute: int | None = None
    bytes_per_minute: int | None = None
    admin: bool = False
    max_jobs: int | None = None
    max_result_bytes: int | None = None

    def check_path(self, path: str) -> None:
        """Raises ForbiddenError for a path that the key may not use."""
        if self.paths and not path.startswith(self.paths):
            raise ForbiddenError(f"The key '{self.name}' may not use {path[:100]}. Ask for a key that may.")

    def check_tasks(self, asked: Sequence[str], known: Iterable[str]) -> None:
        """Raises ForbiddenError for a task of ``asked`` that the key may not use, wherever it is asked for.

        A key whose paths include routes of tasks is limited to these tasks, also in ``also``, in jobs and under /v2.
        ``known``: the names of all tasks.
        """
        allowed = [name for name in known if f"/{name}".startswith(self.paths)] if self.paths else []
        for name in asked if allowed else ():
            if name not in allowed:
                raise ForbiddenError(
                    f"The key '{self.name}' may not use the task '{name[:50]}', only {', '.join(allowed)}. Ask for a "
                    "key that may, or leave the task out.",
                    field="also",
                )


class KeyRing:
    """The keys of a file. Raises KeysFileError when the first read fails; later the last good content stays in use."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._checked_at = time.monotonic()
        self._stamp = _stamp(path)
        self._keys = read_keys(path)

    def find(self, key: str | None) -> ApiKey:
        """The entry of the key that was sent. Raises MissingKeyError for no key or an unknown one."""
        self._reload()
        digest = hash_key(key or "")
        # Compare with every entry in constant time, so that timing does not reveal a near match.
        pairs = [(known, own) for known in self._keys.values() for own in known.digests]
        found = [known for known, own in pairs if hmac.compare_digest(own, digest)]
        if not key or not found:
            what = "is not known" if key else "is missing"
            raise MissingKeyError(f"The API key {what}. Send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.")
        return found[0]

    async def refresh(self) -> None:
        """Read a changed file now, in a thread, so that `find` need not: the file may be on a slow disk."""
        if time.monotonic() - self._checked_at >= _CHECK_SECONDS:
            await asyncio.to_thread(self._reload)

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        try:
            if (stamp := _stamp(self._path)) != self._stamp:
                self._stamp = stamp
                self._keys = read_keys(self._path)
                log.info("read %d API keys again", len(self._keys))
        except KeysFileError as error:
            log.error("the file of API keys cannot be read, the previous keys stay in use: %s", error)


def hash_key(key: str) -> str:
    """SHA-256, hexadecimal. Keys are long and random, so a slow hash is not needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(name: str) -> tuple[str, dict[str, str]]:
    """Make a key; returns the key and its entry for the file. Raises KeysFileError for a name that cannot be in one."""
    name = _checked_name(name)
    key = f"scpalm_{secrets.token_urlsafe(32)}"
    return key, {"name": name, "sha256": hash_key(key)}


def read_keys(path: Path) -> dict[str, ApiKey]:
    """Keys by their names. Raises KeysFileError."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
        keys = [_key(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeysFileError(
            f"{path} is not a file of API keys ({' '.join(str(error).split()) or type(error).__name__}). It holds "
            '{"keys": [{"name": "lab", "sha256": "...", "rows_per_minute": 100000, "bytes_per_minute": 100000000, '
            '"paths": ["/embed"]}]}; make an entry with `scpalm key NAME`.'
        ) from error
    digests = [digest for key in keys for digest in key.digests]
    if len({key.name for key in keys}) < len(keys) or len(set(digests)) < len(digests):
        raise KeysFileError(f"{path} has the same name or the same key twice.")
    return {key.name: key for key in keys}


def _stamp(path: Path) -> tuple[int, int]:
    """Changes with the file; reading it then says why it cannot be read."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def _key(entry: Mapping[str, object]) -> ApiKey:
    name, given = _checked_name(entry["name"]), entry["sha256"]
    digests = [given] if isinstance(given, str) else given
    if not isinstance(digests, list) or not digests or not all(map(_is_digest, digests)):
        raise ValueError(f"'sha256' of '{name}' is not a hexadecimal SHA-256, or a list of them")
    paths = entry.get("paths", [])
    if not isinstance(paths, list) or not all(isinstance(path, str) and path.startswith("/") for path in paths):
        raise ValueError(f"'paths' of '{name}' must be a list of paths")
    return ApiKey(
        name,
        tuple(digests),
        tuple(paths),
        _limit(entry, "rows_per_minute", name),
        _limit(entry, "bytes_per_minute", name),
        _flag(entry, "admin", name),
        _limit(entry, "max_jobs", name),
        _limit(entry, "max_result_bytes", name),
    )


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def _checked_name(name: object) -> str:
    """A name that logs can show. Raises KeysFileError for any other."""
    if not isinstance(name, str) or not name or len(name) > 100 or not name.isprintable():
        raise KeysFileError("The name of a key must be a text of 1 to 100 printable characters.")
    return name


def _flag(entry: Mapping[str, object], field: str, name: str) -> bool:
    value = entry.get(field, False)
    if not isinstance(value, bool):
        raise ValueError(f"'{field}' of '{name}' must be true or false")
    return value


def _limit(entry: Mapping[str, object], field: str, name: str) -> int | None:
    limit = entry.get(field)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise ValueError(f"'{field}' of '{name}' must be a whole number above 0")
    return limit
