"""Uploads that crash, stall or exhaust the parser process: an error for their sender, no effect on others."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import h5py
import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]
import pytest

from scpalm.app.errors import TooLargeError
from scpalm.app.parsing.pool import ParserPool
from scpalm.app.parsing.process import ParserLimits
from scpalm.model.errors import InputError, UnreadableError
from tests.app.pools import H5AD, JSON, as_json, parse_all, upload_of, with_pool
from tests.model.small_cells import NUM_CELLS, NUM_GENES, small_counts


def test_more_memory_than_allowed_is_too_large(genes: Path, h5ad: Path) -> None:
    with h5py.File(h5ad, "r+") as file:
        del file["obs/_index"]
        # A few kB that ask for gigabytes of names.
        file.create_dataset("obs/_index", (2**28,), h5py.string_dtype(), chunks=(2**20,))
        del file["X"]
        file.create_dataset("X", (2**28, NUM_GENES), "f4", chunks=(2**20, NUM_GENES))

    async def use(pool: ParserPool) -> None:
        with pytest.raises(TooLargeError, match="memory"):
            await parse_all(pool, upload_of(h5ad, H5AD))
        assert len((await parse_all(pool, upload_of(as_json(small_counts()), JSON))).rows) == NUM_CELLS

    with_pool(genes, use)


def make_slow(h5ad: Path) -> None:
    with h5py.File(h5ad, "r+") as file:
        del file["X"], file["var/_index"]
        # Nothing is stored, and sixteen million names are looked at.
        file.create_dataset("X", (NUM_CELLS, 2**24), "f4", chunks=(1, 2**20))
        file.create_dataset("var/_index", (2**24,), "S1", chunks=(2**20,), fillvalue=b"G")


async def until_read(pool: ParserPool, h5ad: Path) -> None:
    """Wait until a process of the pool has the file open."""
    async with asyncio.timeout(60):
        while not any(str(h5ad) in (f.path for f in psutil.Process(pid).open_files()) for pid in pool.pids):
            await asyncio.sleep(0.01)


def test_an_upload_that_takes_too_long_is_refused(genes: Path, h5ad: Path) -> None:
    make_slow(h5ad)

    async def use(pool: ParserPool) -> None:
        with pytest.raises(UnreadableError) as caught:
            await parse_all(pool, upload_of(h5ad, H5AD))
        assert caught.value.code == "parser-timeout"
        assert len((await parse_all(pool, upload_of(as_json(small_counts()), JSON))).rows) == NUM_CELLS

    with_pool(genes, use, ParserLimits(1 << 30, 1.0))


def test_a_crash_while_reading_is_an_unreadable_upload(genes: Path, h5ad: Path) -> None:
    """Kill the process from outside, as a bug in the HDF5 library would."""
    make_slow(h5ad)

    async def use(pool: ParserPool) -> None:
        task = asyncio.create_task(parse_all(pool, upload_of(h5ad, H5AD)))
        await until_read(pool, h5ad)
        os.kill(pool.pids[0], signal.SIGSEGV)
        with pytest.raises(UnreadableError, match="SIGSEGV") as caught:
            await task
        assert caught.value.code == "parser-crash"
        assert len((await parse_all(pool, upload_of(as_json(small_counts()), JSON))).rows) == NUM_CELLS

    with_pool(genes, use)


def test_a_disconnected_client_frees_the_process(genes: Path, h5ad: Path) -> None:
    make_slow(h5ad)

    async def use(pool: ParserPool) -> None:
        before = pool.pids
        task = asyncio.create_task(parse_all(pool, upload_of(h5ad, H5AD)))
        await until_read(pool, h5ad)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len((await parse_all(pool, upload_of(as_json(small_counts()), JSON))).rows) == NUM_CELLS
        assert pool.pids != before

    with_pool(genes, use)


def test_damaged_files_only_cause_errors(genes: Path, h5ad: Path) -> None:
    """Change random bytes, including internal structures of HDF5. A crash is an error as well."""
    content = h5ad.read_bytes()
    random = np.random.default_rng(0)
    outcomes: list[str] = []

    async def use(pool: ParserPool) -> None:
        for _ in range(40):
            damaged = np.frombuffer(content, dtype=np.uint8).copy()
            places = random.integers(0, len(content), size=int(random.integers(1, 60)))
            damaged[places] = random.integers(0, 256, size=len(places))
            try:
                prepared = await parse_all(pool, upload_of(damaged.tobytes(), H5AD))
                outcomes.append("cells")
                assert len(prepared.rows) == len(prepared.cells)
            except (InputError, TooLargeError) as error:
                outcomes.append(error.code)
        assert len((await parse_all(pool, upload_of(h5ad, H5AD))).rows) == NUM_CELLS

    with_pool(genes, use, ParserLimits(1 << 30, 60.0, max_bytes=1 << 26))
    assert len(outcomes) == 40
    assert len(set(outcomes)) > 2
