from __future__ import annotations

import numpy as np

from scpalm.model.genes.rows import GeneSet, Rows

WHOLE, HALF = GeneSet(np.ones(6, bool)), GeneSet(np.arange(6) < 3)


def rows_of(cells: list[dict[int, float]], gene_set: GeneSet) -> Rows:
    lengths = [len(cell) for cell in cells]
    return Rows(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.array([gene for cell in cells for gene in cell], np.int32),
        np.array([value for cell in cells for value in cell.values()], np.float32),
        (gene_set,),
        np.zeros(len(cells), np.int32),
    )


def as_cells(rows: Rows) -> list[tuple[dict[int, float], GeneSet]]:
    out = []
    for i in range(len(rows)):
        start, stop = rows.indptr[i], rows.indptr[i + 1]
        cell = dict(zip(rows.gene_index[start:stop].tolist(), rows.value[start:stop].tolist(), strict=True))
        out.append((cell, rows.gene_sets[rows.gene_set_of_row[i]]))
    return out


CELLS: list[dict[int, float]] = [{0: 1.0, 5: 2.0}, {1: 3.0}, {0: 0.5, 1: 1.5, 2: 2.5}]


def test_a_slice_holds_its_cells_and_starts_at_zero() -> None:
    part = rows_of(CELLS, WHOLE).slice(1, 3)
    assert as_cells(part) == [(CELLS[1], WHOLE), (CELLS[2], WHOLE)]
    assert part.indptr[0] == 0
    np.testing.assert_array_equal(part.lengths(), [1, 3])


def test_an_empty_slice_has_no_cells() -> None:
    assert len(rows_of(CELLS, WHOLE).slice(2, 2)) == 0


def test_concat_keeps_order_and_each_cells_gene_set() -> None:
    first, second = rows_of(CELLS, WHOLE), rows_of(CELLS[:2], HALF)
    joined = Rows.concat([first, second, first.slice(0, 1)])
    expected = [(c, WHOLE) for c in CELLS] + [(c, HALF) for c in CELLS[:2]] + [(CELLS[0], WHOLE)]
    assert as_cells(joined) == expected
    assert joined.gene_sets == (WHOLE, HALF)
    assert joined.indptr.dtype == np.int64
    assert joined.gene_index.dtype == np.int32
    assert joined.value.dtype == np.float32


def test_slicing_undoes_concat() -> None:
    first, second = rows_of(CELLS, WHOLE), rows_of(CELLS[1:], HALF)
    joined = Rows.concat([first, second])
    assert as_cells(joined.slice(0, 3)) == as_cells(first)
    assert as_cells(joined.slice(3, 5)) == as_cells(second)


def test_one_part_is_not_copied() -> None:
    rows = rows_of(CELLS, WHOLE)
    assert Rows.concat([rows]) is rows


def test_a_digest_is_of_the_content() -> None:
    assert WHOLE.digest == GeneSet(np.ones(6, bool)).digest
    assert WHOLE.digest != HALF.digest
    assert HALF.num_measured == 3


def test_num_bytes_counts_the_arrays() -> None:
    assert rows_of(CELLS, WHOLE).num_bytes == 4 * 8 + 6 * 4 + 6 * 4
