from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.read_out.basis import Basis
from scpalm.model.read_out.corrections import Corrections
from scpalm.model.sessions.shapes import (
    CPU_SHAPES,
    GPU_SHAPES,
    LENGTHS,
    Padded,
    Shapes,
    lengths_for,
    split,
    warm_shapes,
)

GENES, COMPONENTS = 5000, 3
BASIS = Basis.of(
    np.random.default_rng(0).standard_normal((GENES, COMPONENTS)),
    np.ones(GENES, np.float32),
    np.ones(GENES, np.float32),
    ridge=0.1,
    value_scale=1.0,
)
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
    batches = list(split(rows, Corrections(BASIS)))
    assert sorted(int(row) for batch in batches for row in batch.rows) == list(range(len(rows)))
    for batch in batches:
        for at, row in enumerate(batch.rows):
            start, stop = rows.indptr[row], rows.indptr[row + 1]
            np.testing.assert_array_equal(batch.gene_index[at, : stop - start], rows.gene_index[start:stop])
            np.testing.assert_array_equal(batch.value[at, : stop - start], rows.value[start:stop])
            assert not batch.value[at, stop - start :].any()
            wanted = BASIS.correction(SETS[rows.gene_set_of_row[row]])
            np.testing.assert_array_equal(batch.correction.center, wanted.center)


@pytest.mark.parametrize("shapes", [CPU_SHAPES, GPU_SHAPES])
def test_shapes_are_among_the_fixed_ones(shapes: Shapes) -> None:
    for cells in (1, 2, 5, 8, 17, 90):
        rows_of_cells = rows_of(lengths(cells))
        for batch in split(rows_of_cells, Corrections(BASIS), shapes):
            size, length = batch.gene_index.shape
            assert length in lengths_for(GENES)
            assert size in shapes.for_length(length)
            assert len(batch.rows) <= size
            assert shapes.one_per_length or size == 1 or 2 * len(batch.rows) > size
            assert batch.value.shape == (size, length)
            assert len({int(rows_of_cells.gene_set_of_row[row]) for row in batch.rows}) == 1


@pytest.mark.parametrize("genes, length", [(1, 256), (256, 256), (257, 512), (4096, 4096), (4097, 8192)])
def test_a_cells_padded_length_is_the_smallest_that_holds_it(genes: int, length: int) -> None:
    (batch,) = split(rows_of([genes]), Corrections(BASIS))
    assert batch.gene_index.shape == (1, length)
    with_others = split(rows_of([genes, *lengths(30)]), Corrections(BASIS))
    assert [b.gene_index.shape[1] for b in with_others if 0 in b.rows] == [length]


def test_batches_are_bounded_by_their_entries() -> None:
    for length in LENGTHS:
        sizes = CPU_SHAPES.for_length(length)
        assert sizes[-1] == 1
        assert all(size == 1 or size * length <= 4096 for size in sizes)
        assert set(sizes) <= set(CPU_SHAPES.batches)
        # A GPU rounds differently in batches of another size.
        (size,) = GPU_SHAPES.for_length(length)
        assert size == 1 or size * length <= GPU_SHAPES.max_entries


def test_lengths_reach_as_far_as_the_vocabulary() -> None:
    assert lengths_for(200) == (256,)
    assert lengths_for(257) == (256, 512)
    assert lengths_for(60_000)[-1] == 65536


def test_the_correction_of_a_gene_set_is_computed_once_and_by_content() -> None:
    corrections = Corrections(BASIS)
    first = corrections.of(SETS[1])
    assert corrections.of(GeneSet(SETS[1].measured.copy())) is first


def test_the_cache_of_gene_sets_is_bounded() -> None:
    corrections = Corrections(BASIS)
    for i in range(100):
        corrections.of(GeneSet(np.arange(GENES) <= i))
    assert len(corrections._kept) <= Corrections.MAX_GENE_SETS


def test_warming_up_runs_every_shape_once() -> None:
    seen: list[tuple[int, ...]] = []

    def run(batch: Padded) -> None:
        seen.append(batch.gene_index.shape)

    warm_shapes(run, GENES, COMPONENTS, CPU_SHAPES)
    expected = [(size, length) for length in lengths_for(GENES) for size in CPU_SHAPES.for_length(length)]
    assert sorted(seen) == sorted(expected)
    assert len(set(seen)) == len(seen)
