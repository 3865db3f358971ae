from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from scpalm.model.errors import InputError
from scpalm.training.metrics.labels import encode_labels

FIVE = ["B", "T"] * 5


def test_codes_follow_the_sorted_names() -> None:
    labels = encode_labels(["T", "B", "T", *FIVE])
    assert labels.names == ("B", "T")
    assert labels.codes[:3].tolist() == [1, 0, 1]


@pytest.mark.parametrize("nothing", [np.nan, None, pd.NA, "", "  ", "nan", "Unassigned", "NA"])
def test_values_that_mean_unlabelled(nothing: object) -> None:
    labels = encode_labels([nothing, *FIVE])
    assert labels.names == ("B", "T")
    assert labels.codes[0] == -1
    assert labels.labelled.tolist() == [False] + [True] * 10


def test_categories_and_numbers_are_labels_too() -> None:
    assert encode_labels(pd.Series([None, *FIVE], dtype="category")).names == ("B", "T")
    assert encode_labels(np.array([3, 7] * 5)).names == ("3", "7")


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([np.nan, "", "unassigned"] * 10, "no-labels"),
        (["B"] * 20 + [None], "single-label"),
        ([f"cell {i}" for i in range(20)], "labels-too-fine"),
    ],
)
def test_labels_that_cannot_be_scored_name_the_column(values: list[object], code: str) -> None:
    with pytest.raises(InputError, match="'cell_type'") as caught:
        encode_labels(values, field="cell_type")
    assert caught.value.code == code
    assert caught.value.field == "cell_type"
    assert "--label" in caught.value.hint
