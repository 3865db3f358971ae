from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.drug_response.cell_inputs import (
    CellInputs,
    Panel,
    Standardizer,
    bulk_matrix,
    log1p_cp10k,
    mutation_features,
)
from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import Preparer, prepare
from scpalm.model.genes.rows import Rows
from scpalm.model.genes.values.declared import Declaration
from tests.training.tiny import tiny_vocabulary

VOCABULARY = tiny_vocabulary()
GENES = [f"GENE{i}" for i in range(20)]


def test_bulk_and_a_cell_of_the_same_composition_read_the_same() -> None:
    """TPM of a whole transcriptome, restricted to a panel, compared with counts of all genes."""
    counts = np.random.default_rng(0).integers(0, 50, (3, 120)).astype(np.float32)
    names = [f"GENE{i}" for i in range(120)]
    tpm = counts / counts.sum(1, keepdims=True) * 1e6
    panel = Panel(GENES, VOCABULARY)
    bulk = Preparer(VOCABULARY, GENES, Declaration("log_cp10k")).prepare(
        bulk_matrix(np.log2(tpm[:, :20] + 1).astype(np.float32), GENES, ["a", "b", "c"])
    )
    rows, columns = np.nonzero(counts)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows))]).astype(np.int64)
    cells = prepare(
        CellMatrix(indptr, columns.astype(np.int32), counts[rows, columns], names, ["a", "b", "c"]), VOCABULARY
    )
    one, two = panel.only(bulk.rows), panel.only(cells.rows)
    np.testing.assert_array_equal(one.gene_index, two.gene_index)
    np.testing.assert_allclose(one.value, two.value, rtol=1e-5)
    assert one.gene_sets[0].digest == two.gene_sets[0].digest
    np.testing.assert_allclose(panel.values(one), panel.values(two), rtol=1e-5)


def test_scale() -> None:
    # 100 TPM are 1 in 10,000
    np.testing.assert_allclose(log1p_cp10k(np.log2([[101.0, 1.0]])), [[np.log(2), 0.0]], rtol=1e-6)
    assert log1p_cp10k(np.array([-0.001])) == 0.0


def test_missing_is_not_zero() -> None:
    panel = Panel([*GENES[:4], "NOT A GENE"], VOCABULARY)
    values = panel.values(_rows(["GENE1", "GENE2", "GENE90"], [[5.0, 0.0, 5.0]]))
    assert np.isnan(values[0]).tolist() == [True, False, False, True, True]
    assert values[0, 1] > 0 and values[0, 2] == 0
    standard = Standardizer.fit(np.array([[1.0, 2, 3, 4, 5], [3, 2, 5, 8, 5]]))
    scored = standard.apply(values)
    assert scored[0, 0] == scored[0, 3] == scored[0, 4] == 0.0 and scored[0, 2] == -4.0
    assert standard.sd.tolist() == [1.0, 1.0, 1.0, 2.0, 1.0]


def test_features_follow_the_order_of_parts() -> None:
    panel = Panel(GENES[:2], VOCABULARY)
    rows = _rows(GENES[:2], [[1.0, 0.0], [1.0, 3.0]])
    h = np.array([[7.0], [8.0]], dtype=np.float32)
    inputs = CellInputs(("h_C", "genes"), panel, Standardizer(np.zeros(3, np.float32), np.ones(3, np.float32)))
    features = inputs.features(h, rows)
    assert features[:, 0].tolist() == [7.0, 8.0] and features[0, 2] == 0.0
    assert inputs.num_known(_rows(GENES[:1], [[1.0]]), 1).tolist() == [2]
    with pytest.raises(ValueError, match="parts"):
        CellInputs(("tokens",), panel, Standardizer(np.zeros(1), np.ones(1)))  # type: ignore[arg-type]


def test_too_little_of_the_panel_is_refused() -> None:
    panel = Panel([f"GENE{i}" for i in range(40)], VOCABULARY)
    with pytest.raises(InputError, match="3 of the 40 genes") as caught:
        panel.only(_rows(["GENE0", "GENE1", "GENE2", "GENE90"], [[1.0, 1, 1, 1]]))
    assert caught.value.code == "few-panel-genes"


def test_a_cell_without_a_gene_of_the_panel_is_an_empty_row() -> None:
    panel = Panel([f"GENE{i}" for i in range(10)], VOCABULARY)
    rows = panel.only(_rows([*(f"GENE{i}" for i in range(10)), "GENE90"], [[1.0] * 11, [0.0] * 10 + [4.0]]))
    assert rows.lengths().tolist() == [10, 0]


def test_unknown_calls_have_a_mask() -> None:
    features = mutation_features(np.array([[0, 1, -1]], dtype=np.int8))
    assert features[0, :2].tolist() == [0, 1] and np.isnan(features[0, 2])
    assert features[0, 3:].tolist() == [1, 1, 0]


def _rows(genes: list[str], counts: list[list[float]]) -> Rows:
    array = np.array(counts, dtype=np.float32)
    rows, columns = np.nonzero(array)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(array)))]).astype(np.int64)
    matrix = CellMatrix(
        indptr, columns.astype(np.int32), array[rows, columns], genes, [str(i) for i in range(len(array))]
    )
    return prepare(matrix, VOCABULARY, Declaration("counts")).rows
