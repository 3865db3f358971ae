"""API keys: a JSON file with a hash of each, read again when it changes, and how much each may send a minute."""

from __future__ import annotations

import contextvars
import hashlib
import hmac
import json
import logging
import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scpalm.app.errors import ForbiddenError, MissingKeyError, RateLimitError

log = logging.getLogger("scpalm.keys")

_CHECK_SECONDS = 1.0
# The key of the request at hand; jobs and the command line have none.
current_key: contextvars.ContextVar[ApiKey | None] = contextvars.ContextVar("current_key", default=None)


class KeysFileError(ValueError):
    """A file of keys that cannot be used; the text says what and where, in one line."""


class Budget:
    """So much a minute, saved up for one: what is asked for may overdraw it, and then it has to fill up again."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_minute = per_minute
        self._rate = None if per_minute is None else per_minute / 60
        self._level = float(per_minute or 0)
        self._full = self._level
        self._clock = clock
        self._filled_at = clock()
        self._lock = threading.Lock()

    def wait_seconds(self) -> int:
        """Whole seconds until something may be taken, 0 for now."""
        with self._lock:
            self._fill()
            if self._rate is None or self._level > 0:
                return 0
            return max(1, math.ceil(-self._level / self._rate))

    def take(self, amount: int) -> None:
        """Take, also more than there is."""
        with self._lock:
            self._fill()
            self._level -= amount

    def _fill(self) -> None:
        now = self._clock()
        if self._rate is not None:
            self._level = min(self._full, self._level + (now - self._filled_at) * self._rate)
        self._filled_at = now


@dataclass(eq=False)
class ApiKey:
    """One key.

    Attributes:
        name: of its holder, in logs and as owner of jobs. digest: SHA-256 of the key, hexadecimal.
        paths: beginnings of paths that it may use; none means all. rows, bytes: what it may send a minute.
    """

    name: str
    digest: str
    paths: tuple[str, ...] = ()
    rows: Budget = field(default_factory=lambda: Budget(None))
    bytes: Budget = field(default_factory=lambda: Budget(None))

    def check(self, path: str) -> None:
        """Raises ForbiddenError for a path it may not use, RateLimitError over a budget."""
        if self.paths and not path.startswith(self.paths):
            raise ForbiddenError(f"The key '{self.name}' may not use {path[:100]}. Ask for one that may.")
        self._check("cells", self.rows)
        self._check("bytes", self.bytes)

    def charge(self, num_rows: int) -> None:
        """Take cells from the budget. Raises RateLimitError when it is overdrawn."""
        self._check("cells", self.rows)
        self.rows.take(num_rows)

    def _check(self, what: str, budget: Budget) -> None:
        if wait := budget.wait_seconds():
            detail = f"The key '{self.name}' has sent its {what} of this minute. Try again in {wait} s."
            raise RateLimitError(detail, retry_after=wait)


class KeyRing:
    """The keys of a file. Raises KeysFileError where it cannot be read at first; later the last good one stays."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._checked_at = time.monotonic()
        self._stamp = _stamp(path)
        self._keys = read_keys(path)

    def find(self, key: str | None) -> ApiKey:
        """The key that was sent. Raises MissingKeyError."""
        self._reload()
        digest = hash_key(key or "")
        # All of them, each in constant time: how long it takes tells nothing of which one is nearly right.
        found = [known for known in self._keys.values() if hmac.compare_digest(known.digest, digest)]
        if not key or not found:
            what = "is not known" if key else "is missing"
            raise MissingKeyError(f"The API key {what}. Send one as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'.")
        return found[0]

    def _reload(self) -> None:
        now = time.monotonic()
        if now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        try:
            if (stamp := _stamp(self._path)) != self._stamp:
                self._stamp = stamp
                self._keys = read_keys(self._path, self._keys)
                log.info("%d API keys were read again", len(self._keys))
        except (KeysFileError, OSError) as error:
            log.error("the API keys stay as they were: %s", error)


def hash_key(key: str) -> str:
    """SHA-256, hexadecimal. Keys are long and random, so nothing slower is needed."""
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(name: str) -> tuple[str, dict[str, str]]:
    """A new key, and its entry for the file."""
    key = f"scpalm_{secrets.token_urlsafe(32)}"
    return key, {"name": name, "sha256": hash_key(key)}


def _stamp(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


def read_keys(path: Path, old: Mapping[str, ApiKey] | None = None) -> dict[str, ApiKey]:
    """Keys by their names; budgets of unchanged entries go on from ``old``. Raises KeysFileError."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["keys"]
        keys = [_key(entry) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise KeysFileError(
            f"{path} is no file of API keys ({' '.join(str(error).split()) or type(error).__name__}). It holds "
            '{"keys": [{"name": "lab", "sha256": "...", "rows_per_minute": 100000, "bytes_per_minute": 100000000, '
            '"paths": ["/embed"]}]}; make an entry with `scpalm key NAME`.'
        ) from error
    if len({key.name for key in keys}) < len(keys) or len({key.digest for key in keys}) < len(keys):
        raise KeysFileError(f"{path} has the same name or the same key twice.")
    return {key.name: _kept(key, (old or {}).get(key.name)) for key in keys}


def _kept(key: ApiKey, old: ApiKey | None) -> ApiKey:
    if old is not None and (old.rows.per_minute, old.bytes.per_minute) == (key.rows.per_minute, key.bytes.per_minute):
        key.rows, key.bytes = old.rows, old.bytes
    return key


def _key(entry: Mapping[str, object]) -> ApiKey:
    name, digest = entry["name"], entry["sha256"]
    if not isinstance(name, str) or not name or len(name) > 100:
        raise ValueError("'name' must be a text")
    if not isinstance(digest, str) or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ValueError(f"'sha256' of '{name}' is no hexadecimal SHA-256")
    limits = []
    for what in ("rows_per_minute", "bytes_per_minute"):
        limit = entry.get(what)
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise ValueError(f"'{what}' of '{name}' must be a whole number above 0")
        limits.append(limit)
    paths = entry.get("paths", [])
    if not isinstance(paths, list) or not all(isinstance(path, str) and path.startswith("/") for path in paths):
        raise ValueError(f"'paths' of '{name}' must be a list of paths")
    return ApiKey(name, digest, tuple(paths), Budget(limits[0]), Budget(limits[1]))


def charge_rows(num_rows: int) -> None:
    """Charge cells to the key of the request at hand. Raises RateLimitError when it has none left."""
    key = current_key.get()
    if key is not None:
        key.charge(num_rows)
