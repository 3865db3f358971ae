"""Small bodies that take long to read leave a process free, as large bodies do."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from scpalm.app.parsing.pool import ParserPool
from scpalm.app.parsing.process import ParserLimits
from tests.app.pools import H5AD, JSON, as_json, parse_all, upload_of, write_genes
from tests.model.small_cells import NUM_CELLS, NUM_GENES, small_counts

NUM_ENTRIES = 60_000_000


@pytest.fixture(scope="module")
def bomb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An h5ad file of some 100 kB whose CSC matrix has 60 million entries."""
    path = tmp_path_factory.mktemp("bomb") / "cells.h5ad"
    small_counts("csc").write_h5ad(path)
    with h5py.File(path, "r+") as file:
        matrix = file["X"]
        del matrix["data"], matrix["indices"], matrix["indptr"]
        for name in ("data", "indices"):
            matrix.create_dataset(
                name, (NUM_ENTRIES,), np.int8, chunks=(1 << 22,), compression="gzip", compression_opts=9, fillvalue=0
            )
            block = np.ones(1 << 22, np.int8) if name == "data" else np.zeros(1 << 22, np.int8)
            for start in range(0, NUM_ENTRIES, 1 << 22):
                matrix[name][start : start + (1 << 22)] = block[: min(1 << 22, NUM_ENTRIES - start)]
        matrix["indptr"] = np.minimum(np.arange(NUM_GENES + 1) * (NUM_ENTRIES // NUM_GENES), NUM_ENTRIES)
    return path


def test_two_small_files_that_unpack_to_huge_ones_do_not_hold_all_processes(bomb: Path, tmp_path: Path) -> None:
    assert bomb.stat().st_size < 1 << 20
    genes = write_genes(tmp_path)
    body = as_json(small_counts())

    async def go() -> list[float]:
        async with ParserPool(genes, ParserLimits(4 << 30, 120.0), num_processes=2) as pool:

            async def read_bomb() -> None:
                with pytest.raises(Exception):  # noqa: B017 -- it is refused in the end; here only time matters
                    await parse_all(pool, upload_of(bomb, H5AD))

            slow = [asyncio.create_task(read_bomb()) for _ in range(2)]
            await asyncio.sleep(0.1)
            waits = []
            for _ in range(3):
                started = time.monotonic()
                found = await parse_all(pool, upload_of(body, JSON))
                assert len(found.rows) == NUM_CELLS
                waits.append(time.monotonic() - started)
            still_running = sum(not task.done() for task in slow)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
            return [*waits, float(still_running)]

    *waits, still_running = asyncio.run(go())
    # Both were at work all the while. The first wait includes a CPU second and the start of a process.
    assert still_running == 2 and waits[0] < 15 and max(waits[1:]) < 3, waits
