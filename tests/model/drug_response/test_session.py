"""Drug response in NumPy equals the torch networks, regardless of the batch, and refuses damaged heads."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.cell_inputs import Standardizer, mutation_features
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.network import CellTensors, GraphTensors
from scpalm.model.drug_response.predictions import Predictions
from scpalm.model.drug_response.session import (
    CARD_FILE,
    TABLE_FILE,
    WEIGHTS_FILE,
    DrugResponseSession,
    drug_response_of,
)
from scpalm.model.errors import BundleError, InputError
from scpalm.model.genes.rows import Rows
from scpalm.model.molecules.graph import batch_graphs
from scpalm.training.drug_response.export import NEW_DRUG_RIDGE
from scpalm.training.drug_response.ridge import solve
from scpalm.training.export.bundle_files import add_files
from tests.training.drug_response.small_heads import GENES, Head, write_head


@pytest.fixture(scope="module")
def head(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Head:
    return write_head(shutil.copytree(tiny_bundle.path, tmp_path_factory.mktemp("head") / "bundle"))


def ask(head: Head, cells: slice | list[int] = slice(None), drugs: list[int] | None = None) -> Predictions:
    """Cells and known drugs by number."""
    order = np.arange(len(head.rows))[cells]
    rows = Rows.concat([head.rows.slice(i, i + 1) for i in order])
    chosen = [head.session.drugs.drugs[i] for i in (drugs or range(len(head.session.drugs)))]
    return head.session.predict(head.embedding[order], rows, chosen)


def test_folded_members_equal_the_torch_networks(head: Head) -> None:
    """The literal computation: the torch network of each member, on features computed by hand."""
    panel = np.where(np.isnan(values := head.session.panel.values(head.rows)), head.standards["cell"].mean[16:], values)
    features = np.concatenate([head.embedding, panel], axis=1)
    cells = (features - head.standards["cell"].mean) / head.standards["cell"].sd
    drugs = head.session.drugs.drugs
    graphs = GraphTensors(batch_graphs([drug.graph for drug in drugs]), "mean")
    cell_of, drug_of = (torch.from_numpy(grid.ravel()) for grid in np.indices((len(cells), len(drugs))))
    inputs = CellTensors((torch.from_numpy(cells.astype(np.float32)),))
    wanted = np.stack([network.predict(inputs, graphs, cell_of, drug_of).numpy() for network in head.networks])
    wanted = wanted.reshape(len(wanted), len(cells), len(drugs))
    answer = ask(head)
    np.testing.assert_allclose(answer.ln_ic50, wanted.mean(0), rtol=1e-4, atol=1e-4)
    width = 2.0 * np.sqrt(wanted.var(0) + 0.5**2)
    np.testing.assert_allclose(answer.upper - answer.ln_ic50, width, rtol=1e-3)
    np.testing.assert_allclose(answer.ln_ic50 - answer.lower, width, rtol=1e-3)


def test_a_prediction_does_not_depend_on_other_cells_and_drugs(head: Head) -> None:
    whole = ask(head)
    assert len(whole.ln_ic50) > 64, "more than one block of cells"
    order = list(np.random.default_rng(1).permutation(len(head.rows)))
    drugs = [3, 0, 5, 5, 1]
    mixed = ask(head, order, drugs)
    for name in ("ln_ic50", "lower", "upper"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(whole, name)[np.ix_(order, drugs)])
    for cell in (0, 63, 64, len(head.rows) - 1):
        one = ask(head, [cell], [2])
        assert one.ln_ic50[0, 0] == whole.ln_ic50[cell, 2]
        assert one.cell_distance[0] == whole.cell_distance[cell]


def test_a_new_drug_is_predicted_with_its_similarity(head: Head) -> None:
    drugs = [head.session.drugs.find(text) for text in ("aspirin", "COC(=O)c1ccccc1OC(C)=O", "FC(F)(F)C(F)(F)F")]
    answer = head.session.predict(head.embedding, head.rows, drugs)
    assert answer.drug_similarity[0] == 1.0 and answer.drug_similarity[0] > answer.drug_similarity[1] > 0.4
    assert answer.drug_outside.tolist() == [False, False, True]
    np.testing.assert_allclose(answer.upper[:, 1:] - answer.lower[:, 1:], 8.0, rtol=1e-4)
    assert not np.allclose(answer.upper[:, 0] - answer.lower[:, 0], 8.0, rtol=1e-4)
    assert np.isfinite(answer.ln_ic50).all()


def test_a_training_molecule_sent_as_a_new_drug_uses_the_smooth_layer(head: Head) -> None:
    """The layer for new drugs equals the ridge solution of the networks."""
    drug = head.session.drugs.drugs[0]
    stranger = Drug("stranger", drug.smiles)
    both = head.session.predict(head.embedding, head.rows, [drug, stranger]).ln_ic50
    assert np.abs(both[:, 0] - both[:, 1]).max() > 1e-3
    graphs = GraphTensors(batch_graphs([known.graph for known in head.session.drugs.drugs]), "mean")
    panel = head.session.panel.values(head.rows)
    mean, sd = head.standards["cell"].mean, head.standards["cell"].sd
    cells = np.nan_to_num((np.concatenate([head.embedding, panel], axis=1) - mean) / sd)
    wanted = []
    for network in head.networks:
        encoded = network.drug_encoder(graphs)
        weight, bias = solve(encoded, network.head.drug(encoded), NEW_DRUG_RIDGE)
        units = network.head.drug_units((encoded.double() @ weight + bias).float())[:1]
        cell_units = network.cell_units(CellTensors((torch.from_numpy(cells.astype(np.float32)),)))
        wanted.append((cell_units @ units.T)[:, 0] * network.scale + network.mean)
    np.testing.assert_allclose(both[:, 1], torch.stack(wanted).mean(0), rtol=1e-3, atol=1e-3)


def test_cells_outside_the_training_domain_are_flagged(head: Head) -> None:
    far = head.embedding.copy()
    far[1] += 1000
    answer = head.session.predict(far, head.rows, head.session.drugs.drugs[:1])
    assert answer.cell_outside.tolist() == [False, True] + [False] * (len(far) - 2)


def test_a_cell_without_panel_genes_is_nan_and_does_not_affect_others(head: Head) -> None:
    rows, drugs = head.rows, head.session.drugs.drugs[:2]
    start, stop = rows.indptr[1], rows.indptr[2]
    silent = Rows(
        np.where(np.arange(len(rows.indptr)) > 1, rows.indptr - (stop - start), rows.indptr),
        np.delete(rows.gene_index, slice(start, stop)),
        np.delete(rows.value, slice(start, stop)),
        rows.gene_sets,
        rows.gene_set_of_row,
    )
    answer, whole = (head.session.predict(head.embedding, some, drugs) for some in (silent, rows))
    for name in ("ln_ic50", "lower", "upper", "cell_distance"):
        values = getattr(answer, name)
        assert np.isnan(values[1]).all()
        np.testing.assert_array_equal(np.delete(values, 1, 0), np.delete(getattr(whole, name), 1, 0))
    assert answer.cell_outside[1]


def test_a_non_finite_embedding_is_an_error(head: Head) -> None:
    broken = head.embedding.copy()
    broken[3] = np.inf
    with pytest.raises(FloatingPointError):
        head.session.predict(broken, head.rows, head.session.drugs.drugs[:1])


def test_a_setting_inherits_the_tensors_of_the_previous_one(head: Head, tmp_path: Path) -> None:
    """Methylation has one more branch than mutation; only the tensors that differ are stored."""
    folder = shutil.copytree(head.bundle.path, tmp_path / "bundle")
    card = json.loads((folder / CARD_FILE).read_text())
    entry = json.loads(json.dumps(card["settings"]["mutation"]))
    entry["config"] |= {"methylation_width": 2, "extra_hidden": 9}
    card["settings"]["methylation"] = entry
    tensors, random = load_file(folder / WEIGHTS_FILE), np.random.default_rng(0)
    old, (units, branch) = tensors["mutation.head.cell.weight"], (10, 7)
    own = {
        "first.weight": random.normal(0, 1, (2, 2, 9)), "first.bias": np.zeros((2, 9)),
        "last.weight": random.normal(0, 1, (2, 9, branch)), "last.bias": np.zeros((2, branch)),
    }  # fmt: skip
    tensors |= {f"methylation.methylation.{name}": value.astype(np.float32) for name, value in own.items()}
    columns = random.normal(0, 1, (2, branch, units)).astype(np.float32)
    tensors["methylation.head.cell.weight"] = np.concatenate([old, np.zeros_like(columns)], axis=1)
    tensors["methylation.standard.methylation.mean"] = np.full(2, 0.5, np.float32)
    tensors["methylation.standard.methylation.sd"] = np.ones(2, np.float32)
    calls = np.ones((len(head.rows), 3), dtype=np.int8)
    shares = np.full((len(head.rows), 2), 0.2, np.float32)

    def ask_with(tensors: dict[str, np.ndarray], methylation: np.ndarray | None = None) -> np.ndarray:
        add_files(folder, {CARD_FILE: json.dumps(card).encode(), WEIGHTS_FILE: save(tensors)}, {})
        session = DrugResponseSession(Bundle.load(folder))
        drugs = session.drugs.drugs[:3]
        return session.predict(head.embedding, head.rows, drugs, mutation=calls, methylation=methylation).ln_ic50

    without = ask_with(tensors)
    # Equal within rounding: on some processors a wider product is summed in another order.
    np.testing.assert_allclose(ask_with(tensors, methylation=shares), without, rtol=1e-6)
    tensors["methylation.head.cell.weight"] = np.concatenate([old, columns], axis=1)
    assert np.abs(ask_with(tensors, methylation=shares) - without).max() > 0.01
    np.testing.assert_array_equal(ask_with(tensors), without)
    del tensors["methylation.methylation.last.bias"]
    with pytest.raises(BundleError, match=r"methylation\.last\.bias"):
        ask_with(tensors)


def test_mutation_and_methylation_are_read_or_refused(head: Head) -> None:
    drugs, cells = head.session.drugs.drugs[:2], len(head.rows)
    calls = np.zeros((cells, 3), dtype=np.int8)
    base = head.session.predict(head.embedding, head.rows, drugs, mutation=calls)
    assert base.setting == "mutation"
    for value in (1, -1):
        changed = calls.copy()
        changed[0, 1] = value
        other = head.session.predict(head.embedding, head.rows, drugs, mutation=changed)
        assert (other.ln_ic50[0] != base.ln_ic50[0]).all()
        np.testing.assert_array_equal(other.ln_ic50[1:], base.ln_ic50[1:])
    for bad, code in ((calls[:, :2], "bad-shape"), (calls + 2, "bad-value"), (calls + 0.5, "bad-value")):
        with pytest.raises(InputError) as caught:
            head.session.predict(head.embedding, head.rows, drugs, mutation=bad)  # type: ignore[arg-type]
        assert caught.value.code == code and caught.value.field == "mutation"
    methylation = np.full((cells, 2), 0.5, dtype=np.float32)
    with pytest.raises(InputError, match="without mutation"):
        head.session.predict(head.embedding, head.rows, drugs, methylation=methylation)
    with pytest.raises(InputError, match="no drug response head for methylation"):
        head.session.predict(head.embedding, head.rows, drugs, mutation=calls, methylation=methylation)


def test_mutation_features_reach_the_network_as_in_training(head: Head) -> None:
    calls = np.array([[0, 1, -1]], dtype=np.int8)
    scored = Standardizer.fit(mutation_features(np.array([[0, 1, -1], [1, 1, 0]]))).apply(mutation_features(calls))
    assert np.isfinite(scored).all() and scored[0, 2] == 0


@pytest.mark.parametrize("name", [WEIGHTS_FILE, CARD_FILE, TABLE_FILE])
def test_a_bundle_without_one_of_the_files_is_refused(head: Head, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(head.bundle.path, tmp_path / "bundle")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"][name]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=name):
        DrugResponseSession(Bundle.load(folder))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("version",), 99, "version 99"),
        (("settings", "expression", "config", "rank"), 5, "head.cell.weight"),
        (("settings", "expression", "config", "speed"), 5, "speed"),
        (("settings", "expression", "inputs"), ["tokens"], "parts"),
        (("settings", "expression", "interval"), {}, "spread"),
        (("settings",), {}, "no head for expression"),
        (("genes",), GENES[:5], "has 46 features, not 21"),
        (("domain",), None, "do not fit"),
    ],
)
def test_an_invalid_card_is_refused(
    head: Head, tmp_path: Path, path: tuple[str, ...], value: object, expected: str
) -> None:
    folder = shutil.copytree(head.bundle.path, tmp_path / "bundle")
    card = json.loads((folder / CARD_FILE).read_text())
    at = card
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    add_files(folder, {CARD_FILE: json.dumps(card).encode()}, {})
    with pytest.raises(BundleError, match=expected):
        DrugResponseSession(Bundle.load(folder))


def test_a_head_is_opened_once_and_released_with_its_bundle(head: Head) -> None:
    bundle = Bundle.load(head.bundle.path)
    opened = drug_response_of(bundle)
    assert drug_response_of(bundle) is opened
    assert drug_response_of(Bundle.load(head.bundle.path)) is not opened, "a swapped bundle has its own head"
    released = weakref.ref(opened)
    del opened, bundle
    gc.collect()
    assert released() is None
