"""Helpers to run a parser pool on small files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from anndata import AnnData

from scpalm.app.parsing.child import Parser
from scpalm.app.parsing.messages import Message
from scpalm.app.parsing.pool import ParserPool
from scpalm.app.parsing.process import ParserLimits
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.parsing.wire import PartReader, pack_upload
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.spec import RequestSpec
from tests.model.small_cells import NUM_GENES, small_counts

H5AD, JSON = "application/x-hdf5", "application/json"


def vocabulary_of(genes: list[str]) -> Vocabulary:
    return Vocabulary([f"ENSG{i:011d}" for i in range(len(genes))], genes, [[] for _ in genes])


def as_json(cells: AnnData) -> bytes:
    names = {"genes": list(cells.var_names), "obs_names": list(cells.obs_names)}
    return orjson.dumps(names | {part: getattr(cells.X, part).tolist() for part in ("indptr", "indices", "data")})


EMBED = RequestSpec(("embed",))
LIMITS = ParserLimits(1 << 30, 60.0)


def upload_of(body: bytes | Path, media_type: str, encoding: str = "", **how: Any) -> Upload:
    """An upload that requests embeddings; keyword arguments go to its spec."""
    return Upload(body, media_type, replace(EMBED, **how), encoding)


def with_pool(genes: Path, use: Callable[[ParserPool], Awaitable[None]], limits: ParserLimits = LIMITS) -> None:
    """Run ``use`` with a started pool, then check that its folder is empty and removed."""

    @asynccontextmanager
    async def checked() -> AsyncIterator[ParserPool]:
        folder = genes.parent / "spool"
        folder.mkdir(exist_ok=True)
        async with ParserPool(genes, limits, num_processes=1, directory=folder, uploads=(genes.parent,)) as pool:
            yield pool
        assert not list(folder.iterdir())

    async def go() -> None:
        async with checked() as pool:
            await use(pool)

    asyncio.run(go())


def joined(parts: Iterable[UploadHead | Prepared]) -> Prepared:
    """All parts of an upload combined, checked against the head of the upload."""
    opened, *rest = parts
    assert isinstance(opened, UploadHead)
    prepared = [part for part in rest if isinstance(part, Prepared)]
    whole = Prepared(
        Rows.concat([part.rows for part in prepared]),
        [cell for part in prepared for cell in part.cells],
        prepared[0].coverage,
        prepared[0].input,
        np.concatenate([part.totals for part in prepared]),
    )
    assert (opened.num_cells, opened.coverage) == (len(whole.rows), whole.coverage)
    return whole


async def parse_all(pool: ParserPool, upload: Upload) -> Prepared:
    return joined([part async for part in pool.parse(upload)])


def parsed(parser: Parser, scratch: Path, upload: Upload) -> Prepared:
    """Parse an upload in this process."""
    described, arrays = pack_upload(upload)
    command = Message("parse", {"upload": described, "scratch": str(scratch)}, arrays)
    reader = PartReader(len(parser.vocabulary), None)
    return joined(part for message in parser.parse(command) for part in reader.read(message))


def assert_same(one: Prepared, other: Prepared) -> None:
    np.testing.assert_array_equal(one.rows.indptr, other.rows.indptr)
    np.testing.assert_array_equal(one.rows.gene_index, other.rows.gene_index)
    np.testing.assert_array_equal(one.rows.value, other.rows.value)
    assert one.rows.gene_sets[0].digest == other.rows.gene_sets[0].digest
    assert (one.cells, one.coverage, one.input) == (other.cells, other.coverage, other.input)


def write_genes(folder: Path) -> Path:
    """A vocabulary of the genes of `small_counts`."""
    vocabulary_of([f"GENE{i}" for i in range(NUM_GENES)]).save(folder / "genes.parquet")
    return folder / "genes.parquet"


def write_h5ad(folder: Path) -> Path:
    small_counts().write_h5ad(folder / "cells.h5ad")
    return folder / "cells.h5ad"
