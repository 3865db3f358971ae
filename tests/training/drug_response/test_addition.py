from __future__ import annotations

import numpy as np
import pytest
import torch

from scpalm.training.drug_response.addition import train_addition, widened
from scpalm.training.drug_response.config import DrugTrainingConfig
from scpalm.training.drug_response.data.splits import Split, make_split
from scpalm.training.drug_response.experiment import predict
from scpalm.training.drug_response.features import LineFeatures, line_features
from scpalm.training.drug_response.member import Member
from scpalm.training.drug_response.steps import MemberTask
from scpalm.training.drug_response.tuning import tune
from scpalm.training.evaluation.drug_response.metrics import rmse
from scpalm.training.runs.config import ConfigError
from tests.training.drug_response.small import Small
from tests.training.drug_response.test_member import QUICK, features_of, train


@pytest.fixture(scope="module")
def split(small: Small) -> Split:
    return make_split(small.tables, "published", 0)


@pytest.fixture(scope="module")
def base(small: Small, split: Split) -> Member:
    return train(small, split)


def features(small: Small, split: Split, inputs: str, setting: str) -> LineFeatures:
    lines = np.unique(small.tables.line_of[split.train])
    return line_features(small.tables, small.lines, inputs, setting, lines)  # type: ignore[arg-type]


def test_a_new_branch_starts_with_zero_output(small: Small, split: Split, base: Member) -> None:
    with_mutation = features(small, split, "genes", "mutation")
    network = widened(base.network, with_mutation.widths[-1], QUICK).eval()
    rows = split.validation
    np.testing.assert_array_equal(
        predict(network, small.tables, with_mutation, rows),
        predict(base.network, small.tables, features_of(small, split), rows),
    )


def test_an_added_branch_keeps_the_member_unchanged_and_is_never_worse(
    small: Small, split: Split, base: Member
) -> None:
    network, before = base.network, {name: t.clone() for name, t in base.network.state_dict().items()}
    for setting in ("mutation", "methylation"):
        wider = features(small, split, "genes", setting)
        member = train_addition(network, MemberTask(small.tables, wider, split, QUICK, seed=0))
        looks = [float(entry["validation_rmse"]) for entry in member.history]
        assert len(looks) == QUICK.extra_epochs + 1 and {e["stage"] for e in member.history} == {setting}
        found = rmse(
            predict(member.network, small.tables, wider, split.validation), small.tables.ln_ic50[split.validation]
        )
        assert found == pytest.approx(min(looks), abs=1e-4)
        for name, tensor in network.state_dict().items():
            now = member.network.state_dict()[name]
            assert torch.equal(now[:, : tensor.shape[1]] if name == "head.cell.weight" else now, tensor), name
        network = member.network
    assert all(torch.equal(before[name], t) for name, t in base.network.state_dict().items())


def test_a_branch_learns_what_only_its_input_contains(small: Small, split: Split, base: Member) -> None:
    """The answers depend on one mutation, and the branch learns it."""
    from dataclasses import replace

    calls = small.tables.mutation[:, 0] > 0
    moved = small.tables.ln_ic50 + 3.0 * calls[small.tables.line_of].astype(np.float32)
    tables = replace(small.tables, ln_ic50=moved)
    wider = features(small, split, "genes", "mutation")
    config = replace(QUICK, extra_epochs=40, extra_lr=1e-2, extra_dropout=0.0)
    member = train_addition(base.network, MemberTask(tables, wider, split, config, seed=0))
    looks = [float(entry["validation_rmse"]) for entry in member.history]
    assert min(looks) < 0.8 * looks[0]


def test_fine_tuning_starts_from_the_bundle_and_keeps_its_best_pass(small: Small, split: Split) -> None:
    config = DrugTrainingConfig(
        inputs="h_C", free_epochs=4, encoder_epochs=3, graph_width=16, line_groups=4, drug_groups=3,
        fine_tune=True, tune_epochs=3, tune_lr=1e-2,
    )  # fmt: skip
    frozen = train(small, split, config)
    own = features(small, split, "h_C", "expression")
    start = predict(frozen.network, small.tables, own, split.validation)
    member, tuned = tune(
        frozen.network, small.bundle, small.lines, MemberTask(small.tables, own, split, config, seed=0)
    )
    looks = [float(entry["validation_rmse"]) for entry in member.history]
    measured = small.tables.ln_ic50[split.validation]
    assert looks[0] == pytest.approx(rmse(start, measured), abs=2e-3), "torch and the session agree at the start"
    found = rmse(predict(member.network, small.tables, tuned, split.validation), measured)
    assert found == pytest.approx(min(looks), abs=1e-4)
    assert len(set(looks)) > 1, "the encoder moved"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"fine_tune": True, "inputs": "genes"}, "no h_C"),
        ({"fine_tune": True, "setting": "mutation"}, "extras=joint"),
        ({"extra_hidden": 0}, "extra_hidden"),
        ({"tune_lr": 0.0}, "tune_lr"),
    ],
)
def test_options_without_effect_are_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        DrugTrainingConfig(**options)  # type: ignore[arg-type]
