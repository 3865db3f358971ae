"""Isolation of a parser process: what it may read and write, and what it may never do."""

from __future__ import annotations

import logging
import os
import resource
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import scpalm
from scpalm.app.parsing.isolation.landlock import landlock_version, restrict
from scpalm.app.parsing.isolation.seccomp import refuse_calls

log = logging.getLogger("scpalm.parsing")

# Shared libraries that Python packages load when they are first used, and time zones.
_SYSTEM_FOLDERS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_SYSTEM_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/urandom")
# The process reads how much memory it has, and sets its limit by it.
OWN_MEMORY = "/proc/self/statm"
_NUM_OPEN_FILES = 256
# A result has up to 100,000 cells and an answer may repeat the uploaded file: room for both, yet not for a whole disk.
MAX_FILE_BYTES = 64 << 30


_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "HOME", "LD_LIBRARY_PATH", "HDF5_PLUGIN_PATH")
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")


@dataclass(frozen=True)
class Folders:
    """Paths that a parser process may use, in addition to what Python imports.

    Attributes:
        readable: files, and folders with all that is below them.
        writable: folders that it may read and write.
    """

    readable: tuple[Path, ...]
    writable: tuple[Path, ...]

    def as_dict(self) -> dict[str, list[str]]:
        """The paths as JSON."""
        return {"readable": [*map(str, self.readable)], "writable": [*map(str, self.writable)]}

    @classmethod
    def from_dict(cls, content: Mapping[str, Sequence[str]]) -> Folders:
        """Read `as_dict`."""
        return cls(tuple(map(Path, content["readable"])), tuple(map(Path, content["writable"])))


def isolate(folders: Folders) -> list[str]:
    """Restrict this process permanently; call it before the first thread starts.

    Afterwards it reads and writes ``folders`` alone, opens no sockets and starts no programs.

    Returns what the kernel does not offer, as sentences; empty if the isolation is complete.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_NOFILE, _NUM_OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    missing = []
    if not landlock_version():
        missing.append("The kernel has no landlock: parsers can read every file that the service can read.")
    else:
        try:
            restrict([*folders.readable, *_imported_from()], folders.writable)
        except OSError as error:
            missing.append(f"Parsers can read every file that the service can read ({error}).")
    try:
        refuse_calls()
    except OSError as error:
        missing.append(f"Parsers can open sockets and start programs ({error}).")
    return missing


@cache
def warn_once(missing: tuple[str, ...]) -> None:
    """Log what is missing, once in a process."""
    for sentence in missing:
        log.warning("isolation of parsers is incomplete: %s", sentence)


def missing_isolation() -> list[str]:
    """What `isolate` would return here, found out in a child process so that this one stays free."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, "\n".join(isolate(Folders((), ()))).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text.splitlines()


def _lower(limit: int, value: int) -> None:
    hard = resource.getrlimit(limit)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(limit, (value, value))


def _imported_from() -> Iterator[Path]:
    """Where Python finds its modules and their libraries."""
    packages = [Path(path).resolve() for path in scpalm.__path__]
    for package in packages:
        yield package
        # In a checkout the parts of the package are links.
        yield from (part.resolve() for part in (package / "app", package / "model"))
    parents = {package.parent for package in packages}
    # The folder around the package may hold anything, such as the user's data in a checkout.
    yield from (Path(path) for path in sys.path if os.path.isabs(path) and Path(path).resolve() not in parents)
    yield from (Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    yield from map(Path, (*_SYSTEM_FOLDERS, *_SYSTEM_FILES, OWN_MEMORY))
    for variable in ("LD_LIBRARY_PATH", "HDF5_PLUGIN_PATH"):
        yield from (Path(path) for path in os.environ.get(variable, "").split(os.pathsep) if os.path.isabs(path))


def child_environment(folders: Folders) -> dict[str, str]:
    """The few environment variables that a parser process has."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    # The folder of this package comes first, then the absolute folders of the service's own import path.
    root = Path(scpalm.__file__).parents[1]
    paths = [str(root), *(path for path in sys.path if os.path.isabs(path) and Path(path) not in (root, Path.cwd()))]
    if folders.writable:
        kept["TMPDIR"] = str(folders.writable[0])
    return kept | dict.fromkeys(_ONE_THREAD, "1") | {"PYTHONPATH": os.pathsep.join(paths)}
