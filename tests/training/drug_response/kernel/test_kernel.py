"""The kernel head: its solver and effects against literal formulas, and a trained head against the code that serves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.kernel.head import KERNELS, MutationEffects
from scpalm.model.drug_response.kernel.profile import SPARSE, log2_tpm, quantile_mapped
from scpalm.model.drug_response.predictions import Predictions
from scpalm.model.drug_response.session import CARD_FILE, WEIGHTS_FILE, DrugResponseSession
from scpalm.model.errors import BundleError
from scpalm.model.genes.rows import Rows
from scpalm.training.drug_response.kernel.calibrate import conformal
from scpalm.training.drug_response.kernel.export import training_rows
from scpalm.training.drug_response.kernel.mutations import effect_variances, known_pairs
from scpalm.training.drug_response.kernel.platforms import PLATFORMS, simulate
from scpalm.training.drug_response.kernel.solve import Prior, solve
from scpalm.training.export.bundle_files import add_files
from scpalm.training.runs.config import ConfigError
from tests.training.drug_response.small import Small
from tests.training.drug_response.small_kernel import write_kernel_head


@pytest.fixture(scope="module")
def bundle(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_kernel_head(small, tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> DrugResponseSession:
    return DrugResponseSession(bundle)


def ask(
    session: DrugResponseSession, small: Small, cells: list[int], mutation: np.ndarray | None = None
) -> Predictions:
    rows = Rows.concat([small.lines.rows.slice(cell, cell + 1) for cell in cells])
    return session.predict(small.lines.h_c[cells], rows, session.drugs.drugs, mutation=mutation)


def test_solve_is_the_dense_solution() -> None:
    random = np.random.default_rng(0)
    lines, drugs, genes = 6, 4, 3
    half = random.normal(size=(lines, lines))
    between = random.normal(size=(drugs, drugs))
    calls = random.normal(size=(lines, genes)).astype(np.float32)
    prior = Prior(
        (half @ half.T).astype(np.float32),
        (between @ between.T).astype(np.float32),
        random.uniform(0.5, 1, (lines, drugs)).astype(np.float32),
        calls,
        random.uniform(0, 1, (genes, drugs)).astype(np.float32),
    )
    measured = random.random((lines, drugs)) < 0.7
    deviations = random.normal(size=(lines, drugs)).astype(np.float32)
    dense = np.kron(prior.kernel, prior.drugs) + np.diag(prior.noise.ravel())
    for drug in range(drugs):
        rows = np.arange(lines) * drugs + drug
        dense[np.ix_(rows, rows)] += (calls * prior.variance[:, drug]) @ calls.T
    own = measured.ravel()
    wanted = np.zeros(lines * drugs)
    wanted[own] = np.linalg.solve(dense[np.ix_(own, own)], deviations.ravel()[own])
    np.testing.assert_allclose(solve(prior, measured, deviations).ravel(), wanted, atol=2e-3)


def test_predictions_are_the_literal_sum_over_lines(session: DrugResponseSession, small: Small) -> None:
    assert session.kernel is not None
    head = session.kernel.head
    cells = [3, 11, 20]
    mapped = head.profiles.map(log2_tpm(small.lines.genes[cells]))
    features, lines = (part.astype(np.float64) for part in (mapped.features, head.profiles.features))
    distance = np.square(features[:, None] - lines[None]).mean(axis=2)
    gram = sum(share * np.exp(-scale * distance) for share, scale in KERNELS)
    wanted = head.drug_mean + gram @ head.weights["expression"]
    found = ask(session, small, cells)
    np.testing.assert_allclose(found.ln_ic50, wanted, atol=1e-3)
    assert found.relative is not None
    np.testing.assert_allclose(found.relative.difference, found.ln_ic50 - head.drug_mean, atol=1e-5)
    below = (head.held_out[None] <= found.relative.difference[:, None]).mean(axis=1) * 100
    np.testing.assert_allclose(found.relative.percentile, below, atol=1e-3)
    score = found.relative.difference / head.held_out.std(axis=0)
    np.testing.assert_array_equal(found.relative.rank.argsort(axis=1), score.argsort(axis=1))
    assert found.relative.nearest.tolist() == cells and (found.cell_distance < 0.02).all()


def test_a_cell_has_the_same_bits_alone_and_with_any_number_of_threads(
    session: DrugResponseSession, small: Small
) -> None:
    everything = ask(session, small, list(range(40)))
    with threadpool_limits(4):
        parts = [ask(session, small, [cell]) for cell in (0, 17, 39)]
    for part, cell in zip(parts, (0, 17, 39), strict=True):
        for name in ("ln_ic50", "lower", "upper", "cell_distance"):
            np.testing.assert_array_equal(getattr(part, name)[0], getattr(everything, name)[cell])


def test_training_lines_are_predicted_better_than_by_the_mean(session: DrugResponseSession, small: Small) -> None:
    tables, found = small.tables, ask(session, small, list(range(40))).ln_ic50
    rows = training_rows(tables)
    answer = tables.ln_ic50[rows]
    error = np.square(found[tables.line_of[rows], tables.drug_of[rows]] - answer).mean()
    assert session.kernel is not None
    assert error < 0.7 * np.square(session.kernel.head.drug_mean[tables.drug_of[rows]] - answer).mean()


def test_mutations_move_an_answer_by_their_effect(session: DrugResponseSession, small: Small) -> None:
    sizes, frequency = np.array([2, -1], np.float32), np.array([0, 0.25, 0], np.float32)
    effects = MutationEffects(np.array([1, 1]), np.array([0, 2]), sizes, frequency)
    calls = np.array([[0, 1, 0], [1, 0, 0], [1, -1, 1]])
    wanted = np.array([[1.5, 0, -0.75], [-0.5, 0, 0.25], [0, 0, 0]])
    np.testing.assert_allclose(effects.of(calls, 3), wanted)
    unknown = ask(session, small, [5], np.full((1, 5), -1))
    assert unknown.setting == "mutation" and ask(session, small, [5]).setting == "expression"


def test_a_new_drug_borrows_from_similar_ones(session: DrugResponseSession, small: Small) -> None:
    assert session.kernel is not None
    head = session.kernel.head
    drug = Drug("xylene", "Cc1ccccc1C")
    found = session.predict(small.lines.h_c[:2], small.lines.rows.slice(0, 2), [drug])
    weights = session.kernel._of_new(drug).weights
    names = [one.name for one in session.drugs.drugs]
    assert names[int(weights.argmax())] == "toluene"
    deviations = ask(session, small, [0, 1]).relative
    assert deviations is not None
    line = deviations.difference.mean(axis=1)
    wanted = head.mean_of_new_drug(weights) + line + (deviations.difference - line[:, None]) @ weights
    np.testing.assert_allclose(found.ln_ic50[:, 0], wanted, atol=1e-4)
    np.testing.assert_allclose(found.upper - found.lower, 2 * head.widths.new_drug, rtol=1e-4)
    assert found.drug_similarity[0] < 1


def test_profiles_of_other_platforms_come_nearer_to_bulk(session: DrugResponseSession, small: Small) -> None:
    assert session.kernel is not None
    profiles = session.kernel.head.profiles
    bulk = profiles.map(small.tables.expression)
    measured = simulate(small.tables.expression, PLATFORMS[2], np.random.default_rng(1))
    mapped = profiles.map(measured)
    assert (bulk.noise < mapped.noise).mean() > 0.5 and np.isfinite(mapped.features).all()
    raw = np.nan_to_num((measured - profiles.factors.mean) / profiles.factors.sd * profiles.weight)
    before, after = (np.square(values - bulk.features).mean() for values in (raw, mapped.features))
    assert after < before
    # Depth and units are monotone, and so make no difference.
    again = profiles.map(measured * 0.7)
    np.testing.assert_array_equal(again.features, mapped.features)
    zeros = np.where(np.arange(measured.shape[1]) < 10, measured, 0)
    assert (profiles.map(np.nan_to_num(zeros).astype(np.float32)).noise == SPARSE).all()


def test_quantiles_are_mapped_by_rank_and_ties_share_theirs() -> None:
    from scipy.stats import rankdata

    profiles = np.random.default_rng(0).integers(0, 5, (6, 30)).astype(np.float32)
    quantiles = np.sort(np.random.default_rng(1).random(30))
    rank = rankdata(profiles, axis=1) - 1
    wanted = (quantiles[np.floor(rank).astype(int)] + quantiles[np.ceil(rank).astype(int)]) / 2
    np.testing.assert_array_equal(quantile_mapped(profiles, quantiles), wanted.astype(np.float32))


def test_a_silent_cell_has_no_answer(session: DrugResponseSession, small: Small) -> None:
    one = small.lines.rows.slice(0, 1)
    none = slice(0, 0)
    empty = Rows(np.array([0, 0]), one.gene_index[none], one.value[none], one.gene_sets, np.array([0], np.int32))
    found = session.predict(small.lines.h_c[:1], empty, session.drugs.drugs)
    assert np.isnan(found.ln_ic50).all() and np.isnan(found.upper).all() and found.cell_outside.all()


def test_effects_enter_above_their_threshold() -> None:
    calls, information = np.eye(3, dtype=np.float32), np.full((3, 1), 4.0)
    weights = np.array([[10], [3], [3]], np.float32)
    known = np.array([[False], [True], [False]])
    found = effect_variances(calls, weights, information, known, np.zeros((3, 1), np.float32))
    np.testing.assert_allclose(found[:, 0], [10**2 / 16 - 0.25, 3**2 / 16 - 0.25, 0])
    drugs = (Drug("a", "C", targets="MEK1, MEK2"), Drug("b", "C", targets="KIT, PDGFR"))
    assert known_pairs(["BRAF", "KIT", "TP53"], drugs).tolist() == [[True, False], [False, True], [False, False]]


def test_lines_are_left_out_and_conformal_quantiles_are_exact(small: Small) -> None:
    rows = training_rows(small.tables, ["ACH-000003"])
    assert 3 not in small.tables.line_of[rows] and (small.tables.published_split[rows] != "test").all()
    with pytest.raises(ConfigError, match="ACH-9"):
        training_rows(small.tables, ["ACH-9"])
    assert conformal(np.arange(1.0, 20.0)) == 18
    with pytest.raises(ValueError, match="too few"):
        conformal(np.arange(5.0))


@pytest.mark.parametrize("damage", ["weights", "card"])
def test_a_damaged_head_is_refused(bundle: Bundle, tmp_path: Path, damage: str) -> None:
    import shutil

    copy = shutil.copytree(bundle.path, tmp_path / "bundle")
    tensors, card = load_file(copy / WEIGHTS_FILE), json.loads((copy / CARD_FILE).read_text())
    if damage == "weights":
        tensors["weights.expression"] = tensors["weights.expression"][:-1]
    else:
        card["lines"] = card["lines"][:-1]
    add_files(copy, {WEIGHTS_FILE: save(tensors), CARD_FILE: json.dumps(card).encode()}, {})
    with pytest.raises(BundleError, match="do not fit together"):
        DrugResponseSession(Bundle.load(copy))
