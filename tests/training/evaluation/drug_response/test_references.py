from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scpalm.training.drug_response.data.splits import make_split
from scpalm.training.drug_response.data.tables import Tables, load_tables
from scpalm.training.evaluation.drug_response.metrics import rmse
from scpalm.training.evaluation.drug_response.references import drug_means, references
from tests.training.drug_response.small_tables import write_tables


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder: Path = tmp_path_factory.mktemp("references")
    return load_tables(write_tables(folder, [f"GENE{i}" for i in range(30)]))


def test_drug_means_are_those_of_the_rows_given(tables: Tables) -> None:
    rows = np.flatnonzero(tables.drug_of < 3)
    means = drug_means(tables, rows)
    assert means[1] == pytest.approx(tables.ln_ic50[tables.drug_of == 1].mean(), abs=1e-5)
    assert means[7] == pytest.approx(tables.ln_ic50[rows].mean(), abs=1e-5)


def test_each_reference_knows_more_than_the_one_before(tables: Tables) -> None:
    """The small tables' answers depend on drug and genes."""
    split = make_split(tables, "published", 0)
    errors = {name: rmse(predicted, tables.ln_ic50[split.test]) for name, predicted in references(tables, split)}
    assert list(errors) == [
        "drug_mean", "drug_mean + line_effect", "kernel_ridge (genes)", "published DeepCDR", "published scFoundation",
    ]  # fmt: skip
    assert errors["kernel_ridge (genes)"] < 0.8 * errors["drug_mean"]
    assert errors["drug_mean + line_effect"] <= 1.02 * errors["drug_mean"]


def test_answers_of_test_rows_are_not_read(tables: Tables) -> None:
    from dataclasses import replace

    split = make_split(tables, "published", 0)
    spoiled = tables.ln_ic50.copy()
    spoiled[split.test] = 1e6
    other = replace(tables, ln_ic50=spoiled)
    for (name, one), (_, two) in zip(references(tables, split), references(other, split), strict=True):
        np.testing.assert_array_equal(one, two, err_msg=name)


def test_splits_without_seen_drugs_have_no_ridge_and_no_published_vector(tables: Tables) -> None:
    names = [name for name, _ in references(tables, make_split(tables, "drug", 0))]
    assert names == ["drug_mean", "drug_mean + line_effect"]
