from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from scpalm.model.molecules.graph import ELEMENTS
from scpalm.training.drug_response.config import DrugTrainingConfig
from scpalm.training.drug_response.data.splits import Split, make_split
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.experiment import predict
from scpalm.training.drug_response.features import LineFeatures, line_features
from scpalm.training.drug_response.member import Member, train_member
from scpalm.training.drug_response.steps import MemberTask
from scpalm.training.evaluation.drug_response.metrics import residual_pcc, rmse
from scpalm.training.evaluation.drug_response.references import drug_means
from tests.training.drug_response.small import Small

QUICK = DrugTrainingConfig(
    inputs="genes", free_epochs=60, encoder_epochs=20, graph_width=16, line_groups=4, drug_groups=3, dropout=0.05
)


def train(small: Small, split: Split, config: DrugTrainingConfig = QUICK, tables: Tables | None = None) -> Member:
    tables = tables or small.tables
    lines = np.unique(tables.line_of[split.train])
    features = line_features(tables, small.lines, config.inputs, config.setting, lines)
    return train_member(MemberTask(tables, features, split, config, seed=0))


def features_of(small: Small, split: Split) -> LineFeatures:
    return line_features(small.tables, small.lines, "genes", "expression", np.unique(small.tables.line_of[split.train]))


def test_it_learns_drug_and_line_from_structure_and_genes(small: Small) -> None:
    split = make_split(small.tables, "published", 0)
    member = train(small, split)
    features = line_features(
        small.tables, small.lines, "genes", "expression", np.unique(small.tables.line_of[split.train])
    )
    predicted = predict(member.network, small.tables, features, split.test)
    mean = drug_means(small.tables, split.train)[small.tables.drug_of[split.test]]
    measured = small.tables.ln_ic50[split.test]
    assert rmse(predicted, measured) < 0.9 * rmse(mean, measured)
    assert residual_pcc(predicted, measured, mean) > 0.4


@pytest.mark.parametrize("head", ["published", "mlp"])
def test_other_heads_train_the_same_way(small: Small, head: str) -> None:
    split = make_split(small.tables, "published", 0)
    member = train(small, split, replace(QUICK, head=head, free_epochs=3, encoder_epochs=2))  # type: ignore[arg-type]
    assert all(np.isfinite(float(entry["validation_rmse"])) for entry in member.history)


def test_the_last_layer_is_the_best_of_those_tried(small: Small) -> None:
    """The network's validation RMSE is the smallest of the ridges in its history."""
    split = make_split(small.tables, "published", 0)
    member = train(small, split, replace(QUICK, free_epochs=10))
    tried = [float(entry["validation_rmse"]) for entry in member.history if entry["stage"] == "ridge"]
    assert len(set(tried)) > 1
    features = line_features(
        small.tables, small.lines, "genes", "expression", np.unique(small.tables.line_of[split.train])
    )
    predicted = predict(member.network, small.tables, features, split.validation)
    assert rmse(predicted, small.tables.ln_ic50[split.validation]) == pytest.approx(min(tried), abs=1e-3)


def test_features_absent_from_training_drugs_do_not_change_predictions(small: Small) -> None:
    """No small drug has bromine, so its pooled atom feature is equal for all."""
    member = train(small, make_split(small.tables, "published", 0), replace(QUICK, free_epochs=3, encoder_epochs=2))
    weight = member.network.head.drug.weight
    assert (weight[:, ELEMENTS.index("Br")] == 0).all()
    assert (weight[:, ELEMENTS.index("O")] != 0).any()


def test_answers_outside_the_training_and_validation_rows_are_not_read(small: Small) -> None:
    split = make_split(small.tables, "published", 0)
    spoiled = small.tables.ln_ic50.copy()
    spoiled[np.concatenate([split.test, split.calibration])] = 1e6
    config = replace(QUICK, free_epochs=3, encoder_epochs=2)
    one, two = train(small, split, config), train(small, split, config, replace(small.tables, ln_ic50=spoiled))
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, two.network.state_dict()[name]), name


def test_inputs_are_standardised_with_the_training_lines_alone(small: Small) -> None:
    lines = np.arange(10)
    for inputs in ("h_C", "genes", "h_C+genes", "pca", "scfoundation"):
        features = line_features(small.tables, small.lines, inputs, "expression", lines)
        cell = features.tensors.branches[0][:10].numpy()
        np.testing.assert_allclose(cell.mean(0), 0, atol=1e-4)
        spread = cell.std(0)
        assert ((np.abs(spread - 1) < 1e-3) | (spread < 1e-3)).all()
        assert (features.cell_inputs is None) == (inputs in ("pca", "scfoundation"))


def test_settings_add_their_branches(small: Small) -> None:
    widths = {
        setting: line_features(small.tables, small.lines, "h_C", setting, np.arange(40)).widths
        for setting in ("expression", "mutation", "methylation")
    }
    assert widths == {"expression": (16,), "mutation": (16, 10), "methylation": (16, 10, 6)}
