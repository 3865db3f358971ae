"""Uploads are parsed by a pool of parser processes."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
import zstandard
from anndata import AnnData

from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.sparse_json import SparseJsonCodec
from scpalm.app.errors import TooLargeError, UnsupportedMediaTypeError
from scpalm.app.parsing.child import Parser
from scpalm.app.parsing.messages import Message
from scpalm.app.parsing.pool import ParserPool
from scpalm.app.parsing.process import ParserLimits, ParserProcess
from scpalm.app.parsing.upload import Upload
from scpalm.model.errors import BundleError, InputError, UnreadableError
from scpalm.model.genes.prepare import prepare
from scpalm.model.genes.vocabulary import Vocabulary
from tests.app.pools import (
    H5AD,
    JSON,
    as_json,
    assert_same,
    parse_all,
    parsed,
    upload_of,
    vocabulary_of,
    with_pool,
)
from tests.model.small_cells import NUM_CELLS, NUM_GENES, small_counts


def open_parser(genes: Path) -> Parser:
    return Parser.open(Message("setup", {"genes": str(genes), "max_cells": None, "max_bytes": None}))


def test_all_formats_and_encodings_give_the_same_rows(genes: Path, h5ad: Path) -> None:
    body = as_json(small_counts())
    uploads = [
        upload_of(body, JSON),
        upload_of(body, "application/json; charset=utf-8"),
        upload_of(gzip.compress(body), JSON, "gzip"),
        upload_of(zstandard.compress(body), JSON, "zstd"),
        upload_of(h5ad, H5AD),
        upload_of(h5ad.read_bytes(), H5AD),
        upload_of(gzip.compress(h5ad.read_bytes()), H5AD, "gzip"),
    ]
    (h5ad.parent / "packed").write_bytes(zstandard.compress(h5ad.read_bytes()))
    uploads.append(upload_of(h5ad.parent / "packed", H5AD, "zstd"))

    async def use(pool: ParserPool) -> None:
        (matrix,) = SparseJsonCodec().decode(body, DecodeOptions())
        expected = prepare(matrix, Vocabulary.load(genes))
        assert len(expected.rows) == NUM_CELLS
        for upload in uploads:
            assert_same(await parse_all(pool, upload), expected)

    with_pool(genes, use)


def test_real_cells(tmp_path: Path, real_cells: AnnData) -> None:
    vocabulary_of(list(real_cells.var_names)).save(tmp_path / "genes.parquet")
    real_cells.write_h5ad(tmp_path / "cells.h5ad", compression="gzip")

    async def use(pool: ParserPool) -> None:
        from_file = await parse_all(pool, upload_of(tmp_path / "cells.h5ad", H5AD))
        assert_same(from_file, await parse_all(pool, upload_of(as_json(real_cells), JSON)))
        assert from_file.input.detected == "counts"
        assert from_file.coverage.genes_matched == real_cells.n_vars
        counts = real_cells.X[7].toarray()[0]
        row = from_file.rows.slice(7, 8)
        np.testing.assert_array_equal(row.gene_index, np.flatnonzero(counts))
        np.testing.assert_allclose(row.value, np.log1p(counts[counts > 0] * 1e4 / counts.sum()), rtol=1e-6)

    with_pool(tmp_path / "genes.parquet", use)


def test_a_file_of_many_cells_is_prepared_in_parts(genes: Path, h5ad: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = open_parser(genes)
    whole = parsed(parser, genes, upload_of(h5ad, H5AD))
    monkeypatch.setattr("scpalm.app.codecs.h5ad.CHUNK_CELLS", 4)
    parts = parsed(parser, genes, upload_of(h5ad, H5AD))
    assert_same(parts, whole)
    assert len(parts.rows.gene_sets) == 1


def test_cached_gene_lists_are_not_mixed_up(genes: Path) -> None:
    parser = open_parser(genes)
    for count in [40, 20, 30, 40, *range(12, 32), 20]:
        prepared = parsed(parser, genes, upload_of(as_json(small_counts()[:1, :count].copy()), JSON))
        assert prepared.coverage.genes_in == count
        assert prepared.rows.gene_sets[0].measured.sum() == count


def test_errors_about_cells_are_passed_on(genes: Path, h5ad: Path) -> None:
    broken = h5ad.with_name("broken.h5ad")
    broken.write_bytes(h5ad.read_bytes()[:3000])
    wrong = json.loads(as_json(small_counts()))
    wrong["data"][5] = -1
    cases: list[tuple[Upload, type[Exception], str]] = [
        (upload_of(broken, H5AD), UnreadableError, "truncated-h5ad"),
        (upload_of(b"no HDF5", H5AD), UnreadableError, "not-hdf5"),
        (upload_of(b"", H5AD), UnreadableError, "not-hdf5"),
        (upload_of(b"{", JSON), UnreadableError, "not-json"),
        (upload_of(orjson.dumps(wrong), JSON), InputError, "negative-value"),
        (upload_of(h5ad, H5AD, layer="spliced"), InputError, "no-such-layer"),
        (upload_of(b"not gzip", JSON, "gzip"), UnreadableError, "bad-compression"),
        (upload_of(b"a,b", "text/csv"), UnsupportedMediaTypeError, "unsupported-media-type"),
        (upload_of(b"{}", JSON, "br"), UnsupportedMediaTypeError, "unsupported-media-type"),
    ]

    async def use(pool: ParserPool) -> None:
        for upload, kind, code in cases:
            try:
                await parse_all(pool, upload)
            except (InputError, TooLargeError, UnsupportedMediaTypeError) as error:
                assert (type(error), error.code) == (kind, code)
            else:
                raise AssertionError(f"{code} was not raised")
        assert len((await parse_all(pool, upload_of(h5ad, H5AD))).rows) == NUM_CELLS

    with_pool(genes, use)


@pytest.mark.parametrize("limits", [{"max_cells": NUM_CELLS - 1}, {"max_bytes": 500}], ids=["cells", "bytes"])
def test_over_a_limit_is_too_large(genes: Path, h5ad: Path, limits: dict[str, int]) -> None:
    async def use(pool: ParserPool) -> None:
        with pytest.raises(TooLargeError):
            await parse_all(pool, upload_of(h5ad, H5AD))
        if "max_cells" in limits:
            with pytest.raises(TooLargeError):
                await parse_all(pool, upload_of(as_json(small_counts()), JSON))
        else:
            with pytest.raises(TooLargeError):
                await parse_all(pool, upload_of(gzip.compress(bytes(1 << 20)), JSON, "gzip"))

    with_pool(genes, use, ParserLimits(1 << 30, 60.0, **limits))


def test_the_head_of_an_upload_alone(genes: Path, h5ad: Path) -> None:
    async def use(pool: ParserPool) -> None:
        for upload in (upload_of(h5ad, H5AD), upload_of(as_json(small_counts()), JSON)):
            head = await pool.head(upload)
            assert (head.num_cells, head.coverage.genes_in, len(head.columns)) == (NUM_CELLS, NUM_GENES, NUM_GENES)
        with pytest.raises(UnreadableError):
            await pool.head(upload_of(b"{", JSON))

    with_pool(genes, use)


def test_the_declared_type_of_the_values_is_passed_on(genes: Path) -> None:
    cells = small_counts()
    cells.X = cells.X.log1p()

    async def use(pool: ParserPool) -> None:
        assert (await parse_all(pool, upload_of(as_json(cells), JSON, input="log_cp10k"))).input.detected == "log"
        with pytest.raises(InputError) as caught:
            await parse_all(pool, upload_of(as_json(cells), JSON, input="counts"))
        assert caught.value.code == "not-counts"

    with_pool(genes, use)


def test_a_large_upload_leaves_a_process_for_small_ones(
    genes: Path, h5ad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scpalm.app.parsing.pool.LARGE_BYTES", 10_000)
    assert h5ad.stat().st_size > 10_000
    body = as_json(small_counts()[:3])
    assert len(body) < 10_000
    finished: list[str] = []

    async def go() -> None:
        async with ParserPool(genes, ParserLimits(1 << 30, 60.0), num_processes=2) as pool:

            async def parse(name: str, upload: Upload) -> None:
                await parse_all(pool, upload)
                finished.append(name)

            large = [asyncio.create_task(parse("large", upload_of(h5ad, H5AD))) for _ in range(40)]
            await asyncio.sleep(0)
            await parse("small", upload_of(body, JSON))
            await asyncio.gather(*large)

    asyncio.run(go())
    # Many, because on a busy machine the second process may start long after the first.
    assert finished.index("small") < 40


def test_a_pool_without_its_genes_does_not_start(tmp_path: Path) -> None:
    async def use(pool: ParserPool) -> None:
        raise AssertionError("it started")

    with pytest.raises(BundleError):
        with_pool(tmp_path / "absent.parquet", use)


def test_the_parsers_import_no_runtime_and_no_server() -> None:
    script = (
        "import scpalm.app.parsing.child, scpalm.app.codecs.registry as r, sys; r.all_readers(); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split())
    assert "h5py" in modules
    assert not modules & {"torch", "onnxruntime", "fastapi", "uvicorn", "anndata"}


def test_a_late_disconnect_does_not_affect_the_next_call(genes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled: list[ParserProcess] = []
    monkeypatch.setattr(ParserProcess, "cancel", lambda process: cancelled.append(process))

    async def use(pool: ParserPool) -> None:
        loop = asyncio.get_running_loop()
        for ended in (True, False):
            call = loop.create_future()
            with monkeypatch.context() as patch:
                patch.setattr(loop, "run_in_executor", lambda *_, call=call: call)
                parsing = asyncio.create_task(parse_all(pool, upload_of(as_json(small_counts()), JSON)))
                await asyncio.sleep(0.05)
            if ended:
                call.set_result(None)
            parsing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await parsing
            assert len(cancelled) == (0 if ended else 1)
        call.set_result(None)
        await asyncio.sleep(0)

    with_pool(genes, use)
