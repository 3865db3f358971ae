from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.sessions.shapes import (
    BATCHES,
    LENGTHS,
    Padded,
    ZeroTable,
    batches_for,
    lengths_for,
    split,
    warm_shapes,
)

GENES, TOKENS = 5000, 3
OFFSET = np.random.default_rng(0).standard_normal((GENES, TOKENS)).astype(np.float32)
SETS = (GeneSet(np.ones(GENES, bool)), GeneSet(np.arange(GENES) < 4500))


def rows_of(lengths: list[int]) -> Rows:
    random = np.random.default_rng(0)
    genes = [np.sort(random.choice(4500, n, replace=False)).astype(np.int32) for n in lengths]
    return Rows(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate(genes),
        random.random(sum(lengths)).astype(np.float32) + 1,
        SETS,
        (np.arange(len(lengths)) % 2).astype(np.int32),
    )


def lengths(cells: int) -> list[int]:
    return [int(n) for n in np.random.default_rng(1).integers(1, 4500, cells)]


def test_every_row_is_in_one_batch_with_its_genes_and_values() -> None:
    rows = rows_of([*lengths(90), 256, 257, 512, 1, 4500])
    batches = list(split(rows, ZeroTable(OFFSET)))
    assert sorted(int(row) for batch in batches for row in batch.rows) == list(range(len(rows)))
    for batch in batches:
        for at, row in enumerate(batch.rows):
            start, stop = rows.indptr[row], rows.indptr[row + 1]
            np.testing.assert_array_equal(batch.gene_index[at, : stop - start], rows.gene_index[start:stop])
            np.testing.assert_array_equal(batch.value[at, : stop - start], rows.value[start:stop])
            assert not batch.value[at, stop - start :].any()
            measured = SETS[rows.gene_set_of_row[row]].measured
            np.testing.assert_allclose(batch.measured_offset[at], OFFSET[measured].sum(0), rtol=1e-3, atol=1e-3)
            assert batch.num_measured[at, 0] == measured.sum()


def test_shapes_are_among_the_fixed_ones() -> None:
    for cells in (1, 2, 5, 8, 17, 90):
        for batch in split(rows_of(lengths(cells)), ZeroTable(OFFSET)):
            size, length = batch.gene_index.shape
            assert length in lengths_for(GENES)
            assert size in batches_for(length)
            assert len(batch.rows) <= size
            assert size == 1 or 2 * len(batch.rows) > size
            assert batch.value.shape == (size, length)
            assert (batch.measured_offset.shape, batch.num_measured.shape) == ((size, TOKENS), (size, 1))
            assert (batch.num_measured > 0).all()


@pytest.mark.parametrize("genes, length", [(1, 256), (256, 256), (257, 512), (4096, 4096), (4097, 8192)])
def test_a_cells_padded_length_is_the_smallest_that_holds_it(genes: int, length: int) -> None:
    (batch,) = split(rows_of([genes]), ZeroTable(OFFSET))
    assert batch.gene_index.shape == (1, length)
    in_company = split(rows_of([genes, *lengths(30)]), ZeroTable(OFFSET))
    assert [b.gene_index.shape[1] for b in in_company if 0 in b.rows] == [length]


def test_batches_are_bounded_by_their_entries() -> None:
    for length in LENGTHS:
        sizes = batches_for(length)
        assert sizes[-1] == 1
        assert all(size * length <= 65536 for size in sizes)
        assert set(sizes) <= set(BATCHES)


def test_lengths_reach_as_far_as_the_vocabulary() -> None:
    assert lengths_for(200) == (256,)
    assert lengths_for(257) == (256, 512)
    assert lengths_for(60_000)[-1] == 65536


def test_zeros_of_a_gene_set_are_summed_once_and_by_content() -> None:
    table = ZeroTable(OFFSET)
    first = table.of(SETS[1])
    np.testing.assert_allclose(first, OFFSET[:4500].sum(0, dtype=np.float64), rtol=1e-6)
    assert table.of(GeneSet(SETS[1].measured.copy())) is first


def test_the_cache_of_gene_sets_is_bounded() -> None:
    table = ZeroTable(OFFSET[:300])
    for i in range(300):
        table.of(GeneSet(np.arange(300) <= i))
    assert len(table._sums) <= ZeroTable._MAX_GENE_SETS
    np.testing.assert_allclose(table.of(GeneSet(np.arange(300) <= 0)), OFFSET[0], rtol=1e-6)


def test_warming_up_runs_every_shape_once() -> None:
    seen: list[tuple[int, ...]] = []

    def run(batch: Padded) -> None:
        seen.append(batch.gene_index.shape)

    warm_shapes(run, GENES, TOKENS)
    assert sorted(seen) == sorted((size, length) for length in lengths_for(GENES) for size in batches_for(length))
    assert len(set(seen)) == len(seen)
