from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from scpalm.model.errors import InputError, OverLimitError
from scpalm.model.genes.matrix import CellMatrix


def good() -> CellMatrix:
    """``[[1, 0, 2], [0, 0, 0], [0, 3, 4]]``"""
    return CellMatrix(
        np.array([0, 2, 2, 4], np.int64),
        np.array([0, 2, 1, 2], np.int32),
        np.array([1, 2, 3, 4], np.float32),
        ["A", "B", "C"],
        ["first", "empty", "last"],
    )


def fault(matrix: CellMatrix) -> InputError:
    with pytest.raises(InputError) as caught:
        matrix.validate()
    assert caught.value.hint
    return caught.value


def test_a_good_matrix_passes() -> None:
    matrix = good()
    matrix.validate()
    assert (matrix.num_cells, matrix.num_genes) == (3, 3)


def test_totals_are_row_sums_unless_given() -> None:
    np.testing.assert_array_equal(good().row_totals(), [3, 0, 7])
    assert good().row_totals().dtype == np.float64
    np.testing.assert_array_equal(replace(good(), totals=np.array([9.0, 8.0, 7.0])).row_totals(), [9, 8, 7])


@pytest.mark.parametrize("entry, cell", [(0, "first"), (1, "first"), (2, "last"), (3, "last")])
def test_an_entry_belongs_to_its_cell_also_after_an_empty_one(entry: int, cell: str) -> None:
    assert good().cell_of_entry(entry) == cell


def test_no_cells() -> None:
    empty = replace(
        good(), indptr=np.array([0], np.int64), indices=np.array([], np.int32), data=np.array([], np.float32)
    )
    assert fault(replace(empty, cells=[])).code == "no-cells"
    assert fault(replace(empty, indptr=np.array([], np.int64), cells=[])).code == "no-cells"


def test_no_genes() -> None:
    assert fault(replace(good(), genes=[])).code == "no-genes"


def test_lengths_must_agree_and_the_field_is_named() -> None:
    matrix = good()
    assert fault(replace(matrix, data=matrix.data[:3])).field == "data"
    assert fault(replace(matrix, indptr=np.array([0, 2, 2, 5], np.int64))).field == "indices"
    assert fault(replace(matrix, cells=["first"])).field == "obs_names"
    assert fault(replace(matrix, ensembl_ids=["ENSG00000000001"])).field == "ensembl_ids"
    assert fault(replace(matrix, totals=np.ones(2))).field == "totals"


def test_indptr_starts_at_zero_and_never_decreases() -> None:
    assert fault(replace(good(), indptr=np.array([1, 2, 2, 4], np.int64))).code == "indptr-start"
    error = fault(replace(good(), indptr=np.array([0, 3, 2, 4], np.int64)))
    assert (error.code, error.cell) == ("indptr-order", "empty")


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_out_of_range_names_the_cell(index: int) -> None:
    error = fault(replace(good(), indices=np.array([0, 2, 1, index], np.int32)))
    assert (error.code, error.cell, error.field) == ("index-out-of-range", "last", "indices")
    assert str(index) in error.detail


@pytest.mark.parametrize(
    "value, code", [(np.nan, "not-finite"), (np.inf, "not-finite"), (-np.inf, "not-finite"), (-0.5, "negative-value")]
)
def test_a_wrong_value_names_cell_and_gene(value: float, code: str) -> None:
    error = fault(replace(good(), data=np.array([1, 2, value, 4], np.float32)))
    assert (error.code, error.cell, error.gene) == (code, "last", "B")
    assert "'B'" in error.detail and "'last'" in error.detail


def test_an_error_can_be_pickled() -> None:
    error = OverLimitError("too-many-cells", "Too many.", hint="Send fewer.", field="X", cell="c", gene="g")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is OverLimitError
    assert vars(copy) == vars(error)
    assert str(copy) == "Too many. Send fewer."
