"""`python -m tests.chaos.memory [--cells 100000] [--uploads 8] [--limit-gib 4]`: the largest uploads, all at once.

The service gets SCPALM_MAX_MEMORY_BYTES and, where this process may make cgroups (version 1, root), a cgroup with the
same limit, in which the kernel kills. Prints the answers, the peak of the service and its parsers, and the kills.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import httpx
import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]

from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from tests.chaos.cluster import Process, wait_until

GIB = 1 << 30
GENES_PER_CELL = 1000
_CGROUPS = Path("/sys/fs/cgroup/memory")
_LOOK_SECONDS = 0.1


@dataclass
class Memory:
    """Watches the memory of a process and its children.

    Attributes:
        peak: most bytes seen, with pages that processes share counted once.
        parsers: process ids of all parsers seen; a new one replaces one that was killed.
    """

    pid: int
    peak: int = 0
    parsers: set[int] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        """Look again and again until `stop`."""
        while not self._over.wait(_LOOK_SECONDS):
            root = psutil.Process(self.pid)
            children = root.children(recursive=True)
            self.parsers |= {child.pid for child in children}
            total = 0
            for process in (root, *children):
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)

    def stop(self) -> None:
        """End `watch`."""
        self._over.set()


@dataclass(frozen=True)
class Outcome:
    """What happened.

    Attributes:
        answers: number of answers by status; 0 is a broken connection.
        peak: most bytes of the service and its parsers.
        killed: kills by the kernel; None without a cgroup.
        alive: whether the service answers afterwards.
        left: bytes that the service still counts afterwards.
    """

    answers: Counter[int]
    peak: int
    killed: int | None
    alive: bool
    left: float


def write_cells(path: Path, num_cells: int) -> None:
    """An h5ad file with seeded counts for the genes of the packaged model."""
    genes = Bundle.load(DEFAULT_BUNDLE).vocabulary.symbols
    random = np.random.default_rng(0)
    columns = np.sort(np.argsort(random.random((64, len(genes))))[:, :GENES_PER_CELL]).astype(np.int32)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        matrix = file.create_group("X")
        shape = np.array([num_cells, len(genes)])
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        matrix["indptr"] = np.arange(num_cells + 1, dtype=np.int64) * GENES_PER_CELL
        size = num_cells * GENES_PER_CELL
        for name, block in (
            ("indices", columns.ravel()),
            ("data", 1 + random.poisson(1.0, columns.size).astype(np.float32)),
        ):
            values = matrix.create_dataset(name, (size,), block.dtype)
            for start in range(0, size, len(block)):
                values[start : start + len(block)] = block[: size - start]
        for name, names in (("obs", [f"cell{n}" for n in range(num_cells)]), ("var", list(genes))):
            frame = file.create_group(name)
            frame.attrs.update(
                {"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"}
                | {"column-order": np.array([], dtype=h5py.string_dtype())}
            )
            index = frame.create_dataset("_index", data=names, dtype=h5py.string_dtype())
            index.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


@contextmanager
def cgroup(process: Process, limit: int) -> Iterator[Path | None]:
    """A cgroup that has the process and its children; None where it cannot be made."""
    group = _CGROUPS / f"scpalm-chaos-{process.process.pid}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
    except OSError:
        yield None
        return
    pids = [process.process.pid, *(child.pid for child in psutil.Process(process.process.pid).children(recursive=True))]
    for pid in pids:
        (group / "cgroup.procs").write_text(str(pid))
    try:
        yield group
    finally:
        process.process.kill()
        process.process.wait()
        # The children end when they see that their parent is gone.
        wait_until(lambda: not (group / "cgroup.procs").read_text(), 30)
        group.rmdir()


def flood(folder: Path, file: Path, uploads: int, limit: int, **settings: str) -> Outcome:
    """Send ``uploads`` copies of a file at once to a service with this limit."""
    chosen = {"max_memory_bytes": str(limit), "spool_dir": str(folder), "drain_seconds": "0", "stop_seconds": "5"}
    service = Process(folder / "log", "serve", chosen | settings, {"CHAOS_SLEEP": "0"})
    try:
        service.wait_until_ready()
        with cgroup(service, limit) as group:
            memory = Memory(service.process.pid)
            watching = threading.Thread(target=memory.watch)
            watching.start()
            with ThreadPoolExecutor(uploads) as pool:
                answers = Counter(pool.map(lambda _: _send(service.url, file), range(uploads)))
            memory.stop()
            watching.join()
            alive = httpx.get(f"{service.url}/health/live").status_code == 200
            left = service.metric("request_memory_bytes")
            killed = None if group is None else _kills(group)
        return Outcome(answers, memory.peak, killed, alive, left)
    finally:
        service.process.kill()
        service.process.wait()


def _send(url: str, file: Path) -> int:
    headers = {"content-type": "application/x-hdf5", "accept": "application/vnd.apache.arrow.stream"}
    try:
        with (
            file.open("rb") as body,
            httpx.Client(timeout=1800) as client,
            client.stream("POST", f"{url}/embed", content=body, headers=headers) as answer,
        ):
            for _ in answer.iter_raw():
                pass
            return answer.status_code
    except httpx.HTTPError:
        return 0


def _kills(group: Path) -> int:
    found = dict(line.split() for line in (group / "memory.oom_control").read_text().splitlines())
    return int(found.get("oom_kill", 0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--uploads", type=int, default=8)
    parser.add_argument("--limit-gib", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cells(folder / "cells.h5ad", options.cells)
        size = (folder / "cells.h5ad").stat().st_size
        found = flood(folder, folder / "cells.h5ad", options.uploads, int(options.limit_gib * GIB))
    answers = ", ".join(f"{number} x {status}" for status, number in sorted(found.answers.items()))
    print("| uploads at once | limit | answers | peak, service and parsers | killed | alive after |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {options.uploads} of {size / 1e6:,.0f} MB, {options.cells:,} cells | {options.limit_gib:g} GiB | {answers} "
        f"| {found.peak / GIB:.2f} GiB | {'no cgroup' if found.killed is None else found.killed} "
        f"| {'yes' if found.alive else 'no'} |"
    )


if __name__ == "__main__":
    main()
