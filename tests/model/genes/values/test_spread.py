"""Whole numbers that are counts pass, also shallow and random ones; ranks, bins and logarithms do not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.declared import Declaration
from scpalm.model.genes.values.normalize import detect_input
from scpalm.model.genes.values.shapes import refuse_dense
from scpalm.model.genes.values.spread import check_spread
from scpalm.model.genes.values.totals import COMPLETE_GENES
from scpalm.model.io.cells import open_cells
from tests.model.small_genes import cell_counts, fillers, matrix_of

Floats = NDArray[Any]
CELLS = Path(__file__).parents[5] / "shared" / "data" / "cells"
COUNTS = cell_counts(24, COMPLETE_GENES, depth=4000)
LOGS = np.log1p(COUNTS / COUNTS.sum(axis=1, keepdims=True) * 1e4)


def all_genes(values: Floats) -> CellMatrix:
    return matrix_of(values, fillers(values.shape[1]))


def bins(random: bool) -> Floats:
    """The values of each cell in 50 bins by quantiles, as scGPT makes them: equal values at random, or together."""
    made, generator = np.zeros_like(LOGS), np.random.default_rng(0)
    for row, values in enumerate(LOGS):
        some = np.flatnonzero(values)
        edges = np.quantile(values[some], np.linspace(0, 1, 50))
        low, high = np.digitize(values[some], edges, right=True), np.digitize(values[some], edges)
        made[row, some] = np.ceil(generator.random(len(some)) * (high - low) + low) if random else high
    return made


def ranks(side: Literal["left", "right"], *, zeros: bool = False) -> Floats:
    made = np.array([np.searchsorted(np.sort(row), row, side=side) for row in COUNTS], np.float64)
    return made if zeros else np.where(COUNTS > 0, made - (COUNTS == 0).sum(axis=1, keepdims=True), 0)


def dense_ranks() -> Floats:
    return np.array([np.unique(row, return_inverse=True)[1] for row in COUNTS], np.float64)


def scaled() -> Floats:
    return (LOGS - LOGS.mean(axis=0)) / (LOGS.std(axis=0) + 1e-9)


NOT_COUNTS: dict[str, tuple[Callable[[], Floats], str]] = {
    "bins, ties at random": (lambda: bins(random=True), "compressed-values"),
    "bins, ties together": (lambda: bins(random=False), "compressed-values"),
    "ten bins of one width": (lambda: np.ceil(LOGS / LOGS.max(axis=1, keepdims=True) * 10), "compressed-values"),
    "rounded logarithms": (lambda: np.rint(LOGS), "compressed-values"),
    "logarithms as integers": (lambda: np.floor(LOGS), "compressed-values"),
    "rounded log2 CPM": (lambda: np.rint(np.log2(np.expm1(LOGS) * 100 + 1)), "compressed-values"),
    "rounded logarithms of counts": (lambda: np.rint(np.log1p(COUNTS)), "compressed-values"),
    "rounded square roots": (lambda: np.rint(np.sqrt(COUNTS)), "compressed-values"),
    "logarithms in hundredths": (lambda: np.rint(LOGS * 100), "compressed-values"),
    "logarithms as bytes": (lambda: np.rint(LOGS / LOGS.max() * 255), "compressed-values"),
    "counts up to two": (lambda: np.minimum(COUNTS, 2), "compressed-values"),
    "scaled, moved above zero": (lambda: np.rint(scaled() - scaled().min()), "compressed-values"),
    "counts up to ten": (lambda: np.minimum(COUNTS, 10), "cut-off-values"),
    "percent of each gene": (lambda: np.rint(COUNTS / np.maximum(COUNTS.max(axis=0), 1) * 100), "cut-off-values"),
    "ranks, ties lowest": (lambda: ranks("left") + (COUNTS > 0), "ranked-values"),
    "ranks, ties highest": (lambda: ranks("right"), "ranked-values"),
    "ranks of all genes": (lambda: ranks("left", zeros=True), "ranked-values"),
    "dense ranks": (dense_ranks, "ranked-values"),
    "counts plus one": (lambda: COUNTS + 1, "pseudo-count"),
}


@pytest.mark.parametrize("name", NOT_COUNTS)
def test_whole_numbers_that_are_no_counts_are_refused(name: str) -> None:
    make, code = NOT_COUNTS[name]
    with pytest.raises(InputError) as caught:
        detect_input(all_genes(make()))
    assert caught.value.code == code
    assert detect_input(all_genes(make()), Declaration("counts")).detected == "counts"


@pytest.mark.parametrize("name", ["bins, ties together", "ranks of all genes", "dense ranks", "counts up to ten"])
def test_a_cell_alone_is_refused_too(name: str) -> None:
    with pytest.raises(InputError):
        detect_input(all_genes(NOT_COUNTS[name][0]()[:1]))


@pytest.mark.parametrize("depth", [100, 500, 4000, 100_000])
@pytest.mark.parametrize("genes", [40, 150, 1000, COMPLETE_GENES])
def test_counts_pass_at_any_depth_and_for_any_number_of_genes(depth: float, genes: int) -> None:
    counts = cell_counts(40, genes, seed=int(depth), depth=depth)
    assert check_spread(all_genes(counts)) == ()
    for cell in counts[:10]:
        check_spread(all_genes(cell[None]))


RANDOM = np.random.default_rng(1)
NUMBERS: dict[str, Floats] = {
    "Poisson 0.5": RANDOM.poisson(0.5, (24, 6000)),
    "Poisson 3": RANDOM.poisson(3, (24, 6000)),
    "Poisson 10": RANDOM.poisson(10, (24, 6000)),
    "0 to 9": RANDOM.integers(0, 10, (24, 6000)),
    "1 to 4": RANDOM.integers(1, 5, (24, 6000)) * (RANDOM.random((24, 6000)) < 0.1),
    "0 to 99": RANDOM.integers(0, 100, (24, 300)),
    "binomial": RANDOM.binomial(5, 0.3, (24, 6000)),
    "rates up to 100": RANDOM.poisson(RANDOM.uniform(0, 100, 2000), (24, 2000)),
    "gamma rates": RANDOM.poisson(RANDOM.gamma(2, 1, 300), (24, 300)),
    "one cell again and again": np.tile(RANDOM.poisson(RANDOM.lognormal(0, 1.5, 6000)), (24, 1)),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_random_numbers_pass(name: str) -> None:
    check_spread(all_genes(NUMBERS[name].astype(np.float64)))
    check_spread(all_genes(NUMBERS[name][:1].astype(np.float64)))


@pytest.mark.parametrize("empty", [[23], [0], [5, 6]])
def test_cells_without_counts_of_genes_are_no_obstacle(empty: list[int]) -> None:
    counts = COUNTS.copy()
    counts[empty] = 0  # e.g. only spike-ins, which were left out
    assert check_spread(all_genes(counts)) == ()
    for values in (LOGS, LOGS * 1.7):
        logs = values.copy()
        logs[empty] = 0
        refuse_dense(all_genes(logs))


@pytest.mark.parametrize("values", [np.minimum(COUNTS, 50), np.maximum(np.rint(scaled() * 2), 0)])
def test_values_that_are_cut_off_are_doubted(values: Floats) -> None:
    assert "cut off at" in check_spread(all_genes(values))[0]


def test_values_more_even_than_counts_are_doubted() -> None:
    even = cell_counts(24, 20_000, depth=20_000) > 0
    values = even * (1 + np.random.default_rng(0).geometric(0.5, even.shape))
    values[:, :500] *= 3
    assert "more evenly" in check_spread(all_genes(values.astype(np.float64)))[0]


def test_normalised_counts_that_were_rounded_are_named() -> None:
    shares = COUNTS / COUNTS.sum(axis=1, keepdims=True)
    report = detect_input(all_genes(np.rint(shares * 1e4)))
    assert "normalised counts that were rounded" in report.warnings[0]


def test_logarithms_with_one_decimal_are_no_counts_with_a_common_factor() -> None:
    with pytest.raises(InputError) as caught:
        detect_input(all_genes(np.round(LOGS, 1)))
    assert caught.value.code in ("unclear-values", "compressed-values", "rounded-values")


@pytest.mark.skipif(not CELLS.is_dir(), reason="needs ../shared/data")
@pytest.mark.parametrize("share", [1.0, 0.1])
def test_real_counts_pass(share: float) -> None:
    for path in sorted(CELLS.glob("*/*.h5ad"))[::4]:
        with open_cells(path) as source:
            matrix = next(iter(source.chunks(64)))
        thinned = np.random.default_rng(0).binomial(matrix.data.astype(np.int64), share).astype(np.float32)
        assert check_spread(CellMatrix(matrix.indptr, matrix.indices, thinned, matrix.genes, matrix.cells)) == (), path
