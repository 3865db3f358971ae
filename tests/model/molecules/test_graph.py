"""SMILES to graph: compared with the graphs of DeepCDR, on molecules with known features, and on hostile input."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.molecules.error import MoleculeError
from scpalm.model.molecules.graph import (
    FEATURE_BLOCKS,
    NUM_FEATURES,
    MoleculeGraph,
    batch_graphs,
    parse_smiles,
)
from scpalm.model.molecules.reading import MAX_HEAVY_ATOMS

ASPIRIN = "CC(=O)Oc1ccccc1C(=O)O"
DATA = Path(__file__).parents[4] / "shared" / "data" / "drug_response"


def test_blocks_are_the_75_features() -> None:
    assert NUM_FEATURES == 75
    assert [width for _, width in FEATURE_BLOCKS] == [44, 11, 7, 1, 1, 5, 1, 5]


def test_ethanol_has_the_expected_features() -> None:
    graph = parse_smiles("CCO")
    assert graph.bonds.tolist() == [[0, 1], [1, 2]]
    # carbon; one neighbour; three implicit hydrogens; neutral, no radical; sp3; not aromatic; three hydrogens
    expected = np.zeros(75, dtype=np.int8)
    expected[[0, 44 + 1, 55 + 3, 62 + 2 + 2, 70 + 3]] = 1
    assert graph.features[0].tolist() == expected.tolist()
    oxygen = graph.features[2]
    assert oxygen[2] == 1 and oxygen[44 + 1] == 1 and oxygen[55 + 1] == 1 and oxygen[70 + 1] == 1


def test_charge_aromatic_and_unknown_element_are_encoded() -> None:
    pyridinium = parse_smiles("C[n+]1ccccc1")
    nitrogen = int(np.flatnonzero(pyridinium.features[:, 1])[0])
    assert pyridinium.features[nitrogen, 62] == 1 and pyridinium.features[nitrogen, 69] == 1
    assert parse_smiles("[Xe]").features[0, 43] == 1


def test_adjacency_is_normalised() -> None:
    graph = parse_smiles(ASPIRIN)
    literal = np.eye(graph.num_atoms)
    for low, high in graph.bonds:
        literal[low, high] = literal[high, low] = 1
    root = np.diag(literal.sum(1) ** -0.5)
    np.testing.assert_allclose(_dense(graph), root @ literal @ root, rtol=1e-6)


def test_molecules_of_a_batch_are_not_connected() -> None:
    first, second = parse_smiles(ASPIRIN), parse_smiles("CCO")
    batch = batch_graphs([first, second])
    assert batch.molecule.tolist() == [0] * 13 + [1] * 3
    assert (batch.molecule[batch.row] == batch.molecule[batch.column]).all()
    alone = batch_graphs([second])
    late = batch.molecule[batch.row] == 1
    np.testing.assert_array_equal(batch.weight[late], alone.weight)
    np.testing.assert_array_equal(batch.row[late] - 13, alone.row)


def test_a_single_atom_and_an_empty_batch() -> None:
    assert _dense(parse_smiles("[Ar]")).tolist() == [[1.0]]
    assert batch_graphs([]).features.shape == (0, 75)


def test_every_drug_equals_the_published_graph_up_to_atom_order() -> None:
    if not DATA.is_dir():
        pytest.skip("needs the drug response data")
    oracle = np.load(DATA / "drug_graphs.npz")
    table = pq.read_table(DATA / "drugs.parquet").to_pandas().set_index("pubchem_id")
    assert len(table) == 223
    for number, pubchem_id in enumerate(oracle["pubchem_id"]):
        atoms = slice(*oracle["atom_ptr"][number : number + 2])
        edges = oracle["edge_index"][:, slice(*oracle["edge_ptr"][number : number + 2])].T
        graph = parse_smiles(table.loc[pubchem_id, "smiles"], allow_salt=True)
        both = np.concatenate([graph.bonds, graph.bonds[:, ::-1]])
        assert _refined(graph.features, both) == _refined(oracle["atom_feat"][atoms], edges), table.loc[pubchem_id]


def test_the_graph_comparison_detects_a_moved_bond_and_a_changed_atom() -> None:
    graph = parse_smiles(ASPIRIN)
    bonds = np.concatenate([graph.bonds, graph.bonds[:, ::-1]])
    order = np.random.default_rng(0).permutation(graph.num_atoms)
    place = np.argsort(order)
    same = _refined(graph.features[order], place[bonds])
    assert same == _refined(graph.features, bonds)
    changed = graph.features.copy()
    changed[0, [0, 1]] = changed[0, [1, 0]]
    assert _refined(changed, bonds) != same
    meta = parse_smiles("CC(=O)Oc1cccc(C(=O)O)c1")
    assert _refined(meta.features, np.concatenate([meta.bonds, meta.bonds[:, ::-1]])) != same


@pytest.mark.parametrize(
    ("smiles", "code"),
    [
        ("", "empty-smiles"),
        ("   ", "empty-smiles"),
        ("C" * 1001, "smiles-too-long"),
        ("C" * (MAX_HEAVY_ATOMS + 1), "molecule-size"),
        ("[H][H]", "molecule-size"),
        ("[Na+].CC(=O)[O-]", "salt"),
        ("*CC*", "polymer"),
        ("CC(C)(C)(C)C", "impossible-molecule"),
        ("c1cccc1", "impossible-molecule"),
        ("C1CC", "bad-smiles"),
        ("not a molecule", "bad-smiles"),
        ("CCO ethanol", "bad-smiles"),
        ("CCO\x00", "bad-smiles"),
        ("ССО", "bad-smiles"),  # Cyrillic
        ("{[>]CC[<]}", "bad-smiles"),
    ],
)
def test_a_bad_smiles_is_one_line_that_names_the_drug(smiles: str, code: str) -> None:
    with pytest.raises(MoleculeError) as caught:
        parse_smiles(smiles, drug="my drug")
    assert caught.value.code == code
    assert caught.value.field == "drugs"
    assert "my drug" in str(caught.value) and "\n" not in str(caught.value)
    assert caught.value.hint


def test_rdkit_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for smiles in ("CC(C)(C)(C)C", "C1CC"):
        with pytest.raises(MoleculeError):
            parse_smiles(smiles)
    assert capfd.readouterr() == ("", "")


def test_errors_can_be_pickled() -> None:
    with pytest.raises(MoleculeError) as caught:
        parse_smiles("*C")
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, InputError) and (again.code, str(again)) == ("polymer", str(caught.value))


def test_the_same_molecule_has_one_canonical_form() -> None:
    assert parse_smiles("OCC").canonical == parse_smiles("C(C)O").canonical != parse_smiles("CCC").canonical


def test_salts_are_allowed_for_drugs_of_the_table() -> None:
    assert parse_smiles("N.N.[Cl-].[Cl-].[Pt+2]", allow_salt=True).num_atoms == 5


def _dense(graph: MoleculeGraph) -> NDArray[np.float64]:
    batch = batch_graphs([graph])
    matrix = np.zeros((graph.num_atoms, graph.num_atoms))
    matrix[batch.row, batch.column] = batch.weight
    return matrix


def _refined(features: NDArray[np.generic], edges: NDArray[np.generic]) -> list[int]:
    """Weisfeiler-Lehman colours, initialised with the features. Equal for graphs that are equal up to atom order."""
    neighbours: list[list[int]] = [[] for _ in features]
    for start, end in edges.tolist():
        neighbours[start].append(end)
    colours = [hash(tuple(row)) for row in features.tolist()]
    for _ in range(len(colours)):
        colours = [
            hash((c, tuple(sorted(colours[n] for n in near)))) for c, near in zip(colours, neighbours, strict=True)
        ]
    return sorted(colours)
