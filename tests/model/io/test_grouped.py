"""Counts of cells are summed by group."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.values.declared import AUTO
from scpalm.model.io.cells import open_cells
from scpalm.model.io.grouped import MAX_GROUPS, GroupedCells, Grouping
from scpalm.model.io.labels import Categories
from tests.training.tiny import tiny_counts

COUNTS = tiny_counts(50, seed=2)
TYPES = np.array(["T", "B", "", "NK"])[np.arange(50) % 4]


def cells(values: np.ndarray = COUNTS) -> anndata.AnnData:
    adata = anndata.AnnData(sparse.csr_matrix(values), obs=pd.DataFrame({"type": TYPES, "sample": "one"}))
    adata.var_names = [f"GENE{i}" for i in range(values.shape[1])]
    return adata


def test_groups_are_sums_and_cells_without_a_group_are_left_out() -> None:
    with GroupedCells(open_cells(cells()), "type", AUTO) as source:
        assert source.names == ("B", "NK", "T") and source.num_cells == 3
        (matrix,) = source.chunks(7)  # several chunks of cells, one of groups
        found = sparse.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=(3, COUNTS.shape[1])).toarray()
    np.testing.assert_array_equal(found, [COUNTS[name == TYPES].sum(axis=0) for name in ("B", "NK", "T")])
    assert list(matrix.cells) == ["B", "NK", "T"] and matrix.cells_in_all is None


def test_logarithms_cannot_be_summed() -> None:
    logs = np.log1p(COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4)
    with GroupedCells(open_cells(cells(logs)), "type", AUTO) as source, pytest.raises(InputError, match="raw counts"):
        list(source.chunks(512))


@pytest.mark.parametrize("names", [[""] * 4, [str(i) for i in range(MAX_GROUPS + 1)]])
def test_no_group_and_too_many_are_refused(names: list[str]) -> None:
    with pytest.raises(InputError, match="groups of cells"):
        Grouping("type", Categories.of(names))


def test_tables_become_the_call_of_most_cells_and_the_mean_fraction() -> None:
    grouping = Grouping("type", Categories.of(["T", "T", "T", "B"]))
    mutation = {"genes": ["TP53", "KRAS"], "values": [[1, -1], [1, 0], [0, -1], [-1, 1]]}
    methylation = {"genes": ["a"], "values": [[0.2], [0.4], [np.nan], [np.nan]]}
    found = grouping.tables({"mutation": mutation, "methylation": methylation, "drugs": ["x"]})
    np.testing.assert_array_equal(found["mutation"]["values"], [[-1, 1], [1, 0]])  # type: ignore[index]
    fractions = np.array(found["methylation"]["values"])  # type: ignore[index]
    np.testing.assert_allclose(fractions, np.array([[np.nan], [0.3]]), rtol=1e-6)
    assert found["drugs"] == ["x"]
