"""How much memory this process may use: the limit of its cgroup (version 2 or 1), or the memory of the machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def memory_limit(cgroups: Path = _CGROUPS, own: Path = _OWN_CGROUPS) -> int:
    """The smallest limit that holds for this process, in bytes."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_cgroup_limits(cgroups, own)])


def _cgroup_limits(cgroups: Path, own: Path) -> Iterator[int]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _limits(cgroups, path, "memory.max")
        elif "memory" in controllers.split(","):
            yield from _limits(cgroups / "memory", path, "memory.limit_in_bytes")


def _limits(root: Path, path: str, name: str) -> Iterator[int]:
    """The limits of a cgroup and of those around it. In a container, the path may not be visible; the root is."""
    folder = root / path.strip("/")
    for place in dict.fromkeys([folder, *folder.parents, root]):
        if place != root and root not in place.parents:
            continue
        try:
            text = (place / name).read_text().strip()
        except OSError:
            continue
        if text.isdigit():  # "max" is no limit
            yield int(text)
