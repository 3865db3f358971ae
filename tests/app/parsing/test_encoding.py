"""Results are encoded by parser processes."""

from __future__ import annotations

import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import zstandard

from scpalm.app.codecs.result import OutputValues, Result
from scpalm.app.errors import UnsupportedMediaTypeError
from scpalm.app.parsing.pool import ParserPool
from scpalm.model.errors import InputError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.output.note import note_of
from scpalm.model.tasks.task import OutputSpec
from tests.app.pools import (
    H5AD,
    JSON,
    as_json,
    parse_all,
    upload_of,
    with_pool,
)
from tests.model.small_cells import NUM_CELLS, NUM_GENES, small_counts


def result_of(prepared: Prepared) -> Result:
    values = np.arange(len(prepared.cells) * 4, dtype=np.float32).reshape(-1, 4)
    note = note_of(("mini", "1", "abc"), prepared.coverage, prepared.input, {})
    return Result(prepared.cells, (OutputValues(OutputSpec("embed", "X_scpalm", 4), values),), note)


def test_results_are_encoded(genes: Path, h5ad: Path) -> None:
    async def use(pool: ParserPool) -> None:
        upload = upload_of(zstandard.compress(h5ad.read_bytes()), H5AD, "zstd")
        result = result_of(await parse_all(pool, upload))

        content = await pool.encode(result, JSON, upload)
        assert isinstance(content, bytes)
        assert json.loads(content)["values"] == result.outputs[0].load().tolist()

        path = await pool.encode(result, H5AD, upload)
        assert isinstance(path, Path)
        cells = anndata.read_h5ad(path)
        np.testing.assert_array_equal(cells.obsm["X_scpalm"], result.outputs[0].load())
        assert cells.shape == (NUM_CELLS, NUM_GENES)
        path.unlink()

        path = await pool.encode(result, H5AD, upload_of(as_json(small_counts()), JSON))
        assert isinstance(path, Path)
        cells = anndata.read_h5ad(path)
        assert list(cells.obs_names) == result.cells
        assert cells.shape == (NUM_CELLS, 0)
        path.unlink()

        with pytest.raises(UnsupportedMediaTypeError):
            await pool.encode(result, "text/csv")

    with_pool(genes, use)


def test_a_failed_encoding_leaves_no_file(genes: Path, h5ad: Path) -> None:
    async def use(pool: ParserPool) -> None:
        answer = result_of(await parse_all(pool, upload_of(h5ad, H5AD)))
        with h5py.File(h5ad, "r+") as file:
            del file["uns"]
            file["uns"] = [1, 2]
        with pytest.raises(InputError):
            await pool.encode(answer, H5AD, upload_of(h5ad, H5AD))
        assert [path for path in (genes.parent / "spool").rglob("*") if path.is_file()] == []

    with_pool(genes, use)
