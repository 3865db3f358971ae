"""What tests of several packages use: cells, a watch over event loops, small disks."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse

from tests.loop_lag import LoopLag

REAL_CELLS = 100
# Folders whose files take long: real processes that mostly wait, and computations.
_WAITING, _COMPUTING = {"chaos", "e2e", "fuzz"}, {"training", "docs"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort long files to the front, so that no process is left with one at the end of a parallel run.

    Files that wait alternate with files that compute, so that both kinds run at the same time.
    """
    root = Path(__file__).parent

    def folder(item: pytest.Item) -> str:
        return item.path.relative_to(root).parts[0]

    waiting = _by_file(item for item in items if folder(item) in _WAITING)
    computing = _by_file(item for item in items if folder(item) in _COMPUTING)
    rest = [item for item in items if folder(item) not in _WAITING | _COMPUTING]
    pairs = itertools.zip_longest(waiting, computing, fillvalue=())
    items[:] = [item for pair in pairs for file in pair for item in file] + rest


def _by_file(items: Iterable[pytest.Item]) -> list[list[pytest.Item]]:
    return [list(found) for _, found in itertools.groupby(items, key=lambda item: item.path)]


@pytest.fixture(scope="session")
def real_cells() -> AnnData:
    """Raw counts of the first 100 cells of celltypist's sample, x 32,786 genes."""
    # Find the file without importing celltypist, which takes seconds.
    spec = importlib.util.find_spec("celltypist")
    if spec is None or spec.origin is None:
        pytest.skip("celltypist, whose wheel holds the real cells, is not installed")
    path = Path(spec.origin).parent / "data" / "samples" / "sample_cell_by_gene.csv"
    with path.open() as file:
        genes = file.readline().rstrip("\n").split(",")[1:]
        names, rows = [], []
        for line in itertools.islice(file, REAL_CELLS):
            name, _, values = line.partition(",")
            names.append(name)
            rows.append(sparse.csr_matrix(np.rint(np.fromstring(values, sep=",")).astype(np.float32)))
    cells = AnnData(sparse.vstack(rows, format="csr"))
    cells.obs_names, cells.var_names = names, genes
    return cells


@pytest.fixture
def watch_loop() -> Iterator[Callable[[asyncio.AbstractEventLoop], LoopLag]]:
    """Watches event loops until the test ends; one that stands still for over 100 ms fails the test."""
    with ExitStack() as watches:
        yield lambda loop: watches.enter_context(LoopLag(loop))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Mounts disks (tmpfs) of so many bytes. Skips the test where mounting is not permitted."""
    with ExitStack() as mounted:

        def mount(num_bytes: int) -> Path:
            folder = tmp_path / f"disk{num_bytes}"
            folder.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(folder)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"a small disk cannot be mounted, which needs root on Linux: {done.stderr.strip()}")
            mounted.callback(subprocess.run, ["umount", "--lazy", str(folder)], check=False)
            return folder

        yield mount
