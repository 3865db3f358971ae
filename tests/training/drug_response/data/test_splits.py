from __future__ import annotations

import numpy as np
import pytest

from scpalm.training.drug_response.data.splits import make_split
from scpalm.training.runs.config import ConfigError
from tests.training.drug_response.small import Small

PARTS = ("train", "validation", "calibration", "test")


@pytest.mark.parametrize("name", ["published", "pair-dedup", "cell-line", "drug"])
def test_no_row_and_no_pair_is_on_two_sides(small: Small, name: str) -> None:
    split = make_split(small.tables, name, 3)
    rows = np.concatenate([getattr(split, part) for part in PARTS])
    assert len(np.unique(rows)) == len(rows)
    pairs = {part: set(small.tables.pair_of[getattr(split, part)].tolist()) for part in PARTS}
    for part in ("validation", "calibration"):
        assert not pairs[part] & pairs["train"]
    assert not pairs["validation"] & pairs["calibration"]
    if name != "published":  # some of its test rows have their pair in the training rows
        assert not pairs["test"] & pairs["train"]


def test_published_rows_are_the_published_ones(small: Small) -> None:
    split = make_split(small.tables, "published", 0)
    published = small.tables.published_split
    assert set(published[split.test]) == {"test"} and len(split.test) == (published == "test").sum()
    rest = np.concatenate([split.train, split.validation, split.calibration])
    assert set(published[rest]) == {"train"} and len(rest) == (published == "train").sum()


def test_pair_dedup_drops_exactly_the_repeated_pairs(small: Small) -> None:
    whole, fewer = (make_split(small.tables, name, 0) for name in ("published", "pair-dedup"))
    np.testing.assert_array_equal(whole.train, fewer.train)
    known = set(small.tables.pair_of[small.tables.published_split == "train"].tolist())
    repeated = [row for row in whole.test if small.tables.pair_of[row] in known]
    assert repeated and sorted([*repeated, *fewer.test]) == sorted(whole.test)


def test_the_seed_draws_validation_and_never_calibration(small: Small) -> None:
    one, two = (make_split(small.tables, "published", seed) for seed in (0, 1))
    np.testing.assert_array_equal(one.calibration, two.calibration)
    np.testing.assert_array_equal(one.test, two.test)
    assert not np.array_equal(one.validation, two.validation)
    np.testing.assert_array_equal(one.validation, make_split(small.tables, "published", 0).validation)


@pytest.mark.parametrize(("name", "of"), [("cell-line", "line_of"), ("drug", "drug_of")])
def test_test_rows_are_never_seen_in_training(small: Small, name: str, of: str) -> None:
    group = getattr(small.tables, of)
    split = make_split(small.tables, name, 0)
    seen = set(group[split.train].tolist())
    for part in ("validation", "calibration", "test"):
        assert not seen & set(group[getattr(split, part)].tolist())
    assert set(group[split.test]) != set(group[make_split(small.tables, name, 1).test])


def test_every_type_is_tested(small: Small) -> None:
    split = make_split(small.tables, "cell-line", 0)
    assert set(small.tables.types[small.tables.line_of[split.test]]) == set(small.tables.types)


def test_an_unknown_split_is_named(small: Small) -> None:
    with pytest.raises(ConfigError, match="random"):
        make_split(small.tables, "random", 0)
