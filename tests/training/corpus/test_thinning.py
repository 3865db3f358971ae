from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from scpalm.training.corpus.thinning import Streams, binomial, split_counts, thin_counts


def test_thinned_cells_are_parts_of_all_their_counts_also_of_unknown_genes() -> None:
    counts = np.full(10, 100.0)  # and 1,000 more counts of genes outside the vocabulary
    values = np.log1p(counts * 1e4 / 2000).astype(np.float32)
    random = np.random.default_rng(0)
    for share in (0.2, 0.5, 0.8):
        for genes, part in split_counts(np.arange(10, dtype=np.int32), values, 2000.0, share, random):
            assert len(genes) == 10
            assert np.expm1(part.astype(np.float64)).sum() == pytest.approx(5000, rel=0.12)


def test_thinning_alone_is_the_first_of_the_two_parts() -> None:
    genes = np.arange(40, dtype=np.int32)
    values = np.log1p(np.arange(1.0, 41.0) * 1e4 / 900).astype(np.float32)
    for share in (0.0, 0.01, 0.4, 1.0):
        alone = thin_counts(genes, values, 900.0, share, np.random.default_rng(2))
        first, _ = split_counts(genes, values, 900.0, share, np.random.default_rng(2))
        np.testing.assert_array_equal(alone[0], first[0])
        np.testing.assert_array_equal(alone[1], first[1])


def test_the_two_parts_of_a_cell_add_up_to_it() -> None:
    genes = np.arange(30, dtype=np.int32)
    counts = np.random.default_rng(0).poisson(20, 30).astype(np.float64) + 1
    total = counts.sum()
    values = np.log1p(counts * 1e4 / total).astype(np.float32)
    (g1, v1), (g2, v2) = split_counts(genes, values, total, 0.3, np.random.default_rng(1))

    def shares(part: NDArray[np.int32], value: NDArray[np.float32]) -> NDArray[np.float64]:
        out = np.zeros(30)
        out[part] = np.expm1(value.astype(np.float64)) / 1e4
        return out

    # If all counts are known, the parts' shares, weighted by their sizes, equal those of the whole.
    a, b, whole = shares(g1, v1), shares(g2, v2), counts / total
    weight = np.linalg.lstsq(np.stack([a, b], axis=1), whole, rcond=None)[0]
    assert weight.sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(weight[0] * a + weight[1] * b, whole, atol=1e-6)
    assert weight[0] == pytest.approx(0.3, abs=0.06)


def test_thinning_keeps_the_expected_share_of_each_gene() -> None:
    counts = np.array([4.0, 40.0, 400.0, 4000.0])
    total = counts.sum()
    values = np.log1p(counts * 1e4 / total).astype(np.float32)
    random = np.random.default_rng(0)
    kept = np.zeros(4)
    for _ in range(400):
        genes, part = split_counts(np.arange(4, dtype=np.int32), values, total, 0.25, random)[0]
        kept[genes] += np.expm1(part.astype(np.float64)) / 1e4
    np.testing.assert_allclose(kept / 400, counts / total, rtol=0.12)


@pytest.mark.parametrize("size", [1, 2, 8, 9, 40])
@pytest.mark.parametrize("share", [1 / 256, 0.3, 0.5, 0.9])
def test_both_thinning_methods_are_binomial(size: int, share: float) -> None:
    counts = np.full(40_000, size, np.int32)
    kept = binomial(counts, share, np.random.default_rng(0))
    share = round(share * 256) / 256
    assert kept.min() >= 0 and kept.max() <= size
    # Within six standard errors, for the mean and for the frequency of every count from 0 to size.
    assert kept.mean() == pytest.approx(size * share, abs=6 * np.sqrt(size * share * (1 - share) / len(counts)))
    expected = stats.binom.pmf(np.arange(size + 1), size, share) * len(counts)
    found = np.bincount(kept, minlength=size + 1)
    assert (np.abs(found - expected) <= 6 * np.sqrt(expected) + 3).all()
    assert abs(np.corrcoef(kept[:-1], kept[1:])[0, 1]) < 0.03


@pytest.mark.parametrize("share, kept", [(0.0, 0), (0.001, 0), (0.999, 1), (1.0, 1)])
def test_shares_close_to_zero_and_one(share: float, kept: int) -> None:
    counts = np.array([0, 1, 8, 9, 1000], np.int32)
    np.testing.assert_array_equal(binomial(counts, share, np.random.default_rng(0)), kept * counts)


class TestStreams:
    def test_random_numbers_depend_only_on_the_key_and_the_cell(self) -> None:
        streams = Streams(1, 2, 3)
        first = streams[7].random(5)
        streams[8].integers(10, dtype=np.int32)  # an odd number of halves of a word
        np.testing.assert_array_equal(streams[7].random(5), first)
        np.testing.assert_array_equal(Streams(1, 2, 3, first=4)[3].random(5), first)

    def test_cells_and_keys_differ(self) -> None:
        drawn = {float(Streams(*key)[cell].random()) for key in ((1, 2), (2, 1), (1, 2, 3)) for cell in range(50)}
        assert len(drawn) == 150

    def test_long_draws_do_not_run_into_the_next_cell(self) -> None:
        streams = Streams(0)
        first = streams[0].bit_generator.random_raw(20_000)
        assert not np.isin(streams[1].bit_generator.random_raw(20_000), first).any()


def test_a_cell_that_would_be_left_without_counts_stays_whole() -> None:
    genes, values = np.array([3], np.int32), np.array([np.log1p(1e4)], np.float32)
    for part in split_counts(genes, values, 1.0, 0.5, np.random.default_rng(0)):
        np.testing.assert_array_equal(part[0], genes)
        np.testing.assert_array_equal(part[1], values)
