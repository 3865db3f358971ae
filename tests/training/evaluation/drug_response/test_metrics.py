from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scpalm.training.evaluation.drug_response.metrics import (
    coverage,
    mean_of_groups,
    pcc,
    pcc_by_group,
    residual_pcc,
    rmse,
    scores,
    spearman,
    wins,
)

DATA = Path(__file__).parents[5] / "shared" / "data" / "drug_response"


def test_against_known_values() -> None:
    a, b = np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 10])
    assert pcc(a, b) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert spearman(a, b) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(0.8660254)  # ties at their mean rank
    assert rmse(a, b) == pytest.approx(np.sqrt(38 / 4))
    assert np.isnan(pcc(np.full(3, 0.1), b[:3])) and np.isnan(spearman(a, np.ones(4)))
    assert coverage(np.zeros(4), np.full(4, 2.0), b) == 0.5


def test_one_value_a_drug_has_no_residual_correlation() -> None:
    random = np.random.default_rng(0)
    drug = random.integers(0, 5, 4000)
    level, own = random.normal(0, 5, 5)[drug], random.normal(0, 1, 4000)
    assert pcc(level, level + own) > 0.95
    constant = level + np.array([0.1, -0.2, 0.3, 0.0, 0.2])[drug]
    assert abs(residual_pcc(constant, level + own, level)) < 0.05
    assert residual_pcc(level + own / 2, level + own, level) == pytest.approx(1.0)


def test_groups_of_two_are_ignored() -> None:
    group = np.array(["a", "a", "a", "b", "b", "c", "c", "c"])
    values = np.arange(8.0)
    found = pcc_by_group(np.where(group == "c", 1.0, values), values, group)
    assert found["a"] == 1.0 and np.isnan(found["c"]) and "b" not in found
    assert mean_of_groups(found) == 1.0 and np.isnan(mean_of_groups({}))
    assert wins({"a": 0.5, "b": 0.1, "c": float("nan")}, {"a": 0.4, "b": 0.1, "c": 0.0, "d": 0.9}) == (1, 2)


def test_undefined_metrics_are_left_out() -> None:
    group = np.array([0, 0, 0])
    row = scores(np.ones(3), np.arange(3.0), np.zeros(3), drug=group, line=group, cancer_type=group)
    assert set(row) == {"rmse"}


def test_the_published_predictions_score_as_published() -> None:
    """The metrics of the published predictions equal the values in the protocol."""
    if not DATA.is_dir():
        pytest.skip("needs the drug response data")
    table = pd.read_parquet(DATA / "response.parquet")
    train, test = table[table.split_scf == "train"], table[table.split_scf == "test"]
    mean = test.pubchem_id.map(train.groupby("pubchem_id").ln_ic50.mean()).to_numpy()
    groups = {
        "drug": test.pubchem_id.to_numpy(),
        "line": test.depmap_id.to_numpy(),
        "cancer_type": test.tcga_type.to_numpy(),
    }
    measured = test.ln_ic50.to_numpy(dtype=np.float64)
    ours = scores(test.pub_pred_scfoundation.to_numpy(), measured, mean, **groups)
    expected = {"pcc": 0.8822, "spearman": 0.8530, "rmse": 1.271, "drug_pcc": 0.513, "residual_pcc": 0.503}
    assert {name: ours[name] for name in expected} == pytest.approx(expected, abs=6e-4)
    base = scores(test.pub_pred_base.to_numpy(), measured, mean, **groups)
    assert base["pcc"] == pytest.approx(0.8372, abs=1e-4) and base["residual_pcc"] == pytest.approx(0.017, abs=1e-3)
    anchor = pd.read_csv(DATA / "anchor_by_cancer_type.csv").set_index("tcga_type").scf_p
    by_type = pcc_by_group(test.pub_pred_scfoundation.to_numpy(), measured, groups["cancer_type"])
    assert by_type == pytest.approx(anchor.to_dict(), abs=1e-4)
