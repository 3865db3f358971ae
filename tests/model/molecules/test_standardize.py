"""One form for each molecule: the marks that the model cannot read make no other molecule of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.rdBase import BlockLogs

from scpalm.model.molecules.error import MoleculeError
from scpalm.model.molecules.graph import parse_smiles
from scpalm.model.molecules.standardize import standardize

# Drugs that are in no training table: acids, bases, zwitterions, rings with stereo, sulfoxides, nitro groups.
DRUGS = [
    "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
    "CC(C)NCC(O)COc1cccc2ccccc12",
    "COc1ccc2[nH]c(S(=O)Cc3ncc(C)c(OC)c3C)nc2c1",
    "CC1(C)SC2C(NC(=O)Cc3ccccc3)C(=O)N2C1C(=O)O",
    "NC(Cc1ccc(O)c(O)c1)C(=O)O",
    "Cc1ncc([N+](=O)[O-])n1CCO",
    "CN1C2CCC1CC(OC(=O)C(CO)c1ccccc1)C2",
    "CC12CCC3C(CCC4=CC(=O)CCC43C)C1CCC2O",
    "O=C(O)COc1ccc(Cl)cc1Cl",
    "NS(=O)(=O)c1cc2c(cc1Cl)NCNS2(=O)=O",
    "CN(C)C(=N)NC(=N)N",
    "O=C1NC(=O)C(c2ccccc2)(c2ccccc2)N1",
]


def marked(smiles: str, draw: st.DataObject) -> str:
    """The same molecule with stereo marks, isotopes, atom maps, explicit hydrogens, another order of atoms."""
    molecule = Chem.RWMol(Chem.MolFromSmiles(smiles))
    kinds = draw.draw(st.sets(st.sampled_from(["stereo", "isotope", "map", "hydrogens"]), min_size=1))
    for atom in molecule.GetAtoms():
        if "stereo" in kinds and atom.GetHybridization() == Chem.HybridizationType.SP3 and atom.GetDegree() > 2:
            atom.SetChiralTag(Chem.ChiralType.CHI_TETRAHEDRAL_CW)
        if "isotope" in kinds and atom.GetAtomicNum() == 6:
            atom.SetIsotope(13)
        if "map" in kinds:
            atom.SetAtomMapNum(atom.GetIdx() + 1)
    made = Chem.AddHs(molecule) if "hydrogens" in kinds else molecule
    order = draw.draw(st.permutations(range(made.GetNumAtoms())))
    return Chem.MolToSmiles(Chem.RenumberAtoms(made, order), canonical=False)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(DRUGS), st.data())
def test_marks_change_neither_the_molecule_nor_its_features(smiles: str, data: st.DataObject) -> None:
    plain, other = standardize(smiles, "x"), standardize(marked(smiles, data), "x")
    assert (other.smiles, other.key) == (plain.smiles, plain.key)
    np.testing.assert_array_equal(parse_smiles(other.smiles).features, parse_smiles(plain.smiles).features)


@pytest.mark.parametrize("smiles", DRUGS)
@pytest.mark.parametrize(
    "salt", ["Cl", "[Na+].[Cl-]", "CS(=O)(=O)O", "OC(=O)C(F)(F)F", "O", "OC(=O)/C=C\\C(=O)O", "CCO"]
)
def test_counter_ions_and_solvents_are_removed_and_reported(smiles: str, salt: str) -> None:
    plain, salted = standardize(smiles, "x"), standardize(f"{smiles}.{salt}", "x")
    assert salted.smiles == plain.smiles
    assert any("removed" in change for change in salted.changes)


@pytest.mark.parametrize(
    ("charged", "neutral"),
    [
        ("CC(C)Cc1ccc(cc1)C(C)C(=O)[O-]", "CC(C)Cc1ccc(cc1)C(C)C(=O)O"),
        ("[Na+].CC(C)Cc1ccc(cc1)C(C)C(=O)[O-]", "CC(C)Cc1ccc(cc1)C(C)C(=O)O"),
        ("CC(C)[NH2+]CC(O)COc1cccc2ccccc12.[Cl-]", "CC(C)NCC(O)COc1cccc2ccccc12"),
        ("[NH3+]C(Cc1ccccc1)C(=O)[O-]", "NC(Cc1ccccc1)C(=O)O"),
        ("CN(C)C(=[NH2+])NC(=N)N", "CN(C)C(=N)NC(=N)N"),
        ("C[S+]([O-])c1ccccc1", "CS(=O)c1ccccc1"),
        ("O=N(=O)c1ccccc1", "O=[N+]([O-])c1ccccc1"),
    ],
)
def test_charge_states_are_one_molecule(charged: str, neutral: str) -> None:
    assert standardize(charged, "x").smiles == standardize(neutral, "x").smiles


def test_what_was_done_is_said() -> None:
    done = standardize("[Na+].C[C@H](N)[13CH2]C(=O)[O-]", "x").changes
    assert done == (
        "isotope labels removed",
        "stereo marks removed",
        "charges neutralised",
        "counter-ions or solvent removed: [Na+]",
    )
    assert standardize("CC(=O)Oc1ccccc1C(=O)O", "x").changes == ()


def test_a_charge_that_belongs_to_the_molecule_stays() -> None:
    assert standardize("C[N+](C)(C)CCO.[Cl-]", "x").smiles == "C[N+](C)(C)CCO"


@pytest.mark.parametrize(
    "smiles",
    ["N[Pt](N)(Cl)Cl", "[NH3][Pt]([NH3])(Cl)Cl", "[NH3+][Pt-2]([NH3+])(Cl)Cl", "N->[Pt](<-N)(Cl)Cl", "Cl[Pt]Cl.N.N"],
)
def test_the_ways_to_draw_a_metal_complex_have_one_key(smiles: str) -> None:
    known = standardize("N.N.[Cl-].[Cl-].[Pt+2]", "x")
    assert known.metal and standardize(smiles, "x").key == known.key


@pytest.mark.parametrize(
    ("smiles", "code", "word"),
    [
        ("[C][C][=Branch1][C][=O][O]", "selfies", "SELFIES"),
        ("[C][N][C][Ring1][Ring1]", "selfies", "SELFIES"),
        ("[C][C][O]", "radical", "SELFIES"),
        ("[CH2]C", "radical", "unpaired"),
        ("N#C[N]C(=Nc1ccccc1)NC#N", "radical", "N"),
        ("*CC*", "polymer", "complete"),
        ("[Na+].[Cl-]", "salt", "active part"),
        ("c1ccncc1CC.c1ccccc1CCC", "salt", "mixture"),
        ("COc1cc(=C2C=3ccccc3=N2)[nH]c1=Cc1[nH]c(C)cc1C", "unreadable-molecule", "Kekule"),
    ],
)
def test_what_is_no_single_molecule_is_refused_by_name(smiles: str, code: str, word: str) -> None:
    with pytest.raises(MoleculeError, match=word) as caught:
        standardize(smiles, "my drug")
    assert caught.value.code == code and "my drug" in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([*list("CNOScno()=#123[]+-H"), "Cl", "[nH]", "C=3", "=c", "=N2"]), min_size=2, max_size=24)
)
def test_any_text_gives_a_molecule_that_reads_back_or_a_refusal(parts: list[str]) -> None:
    try:
        found = standardize("".join(parts), "x")
    except MoleculeError:
        return
    with BlockLogs():
        assert Chem.MolFromSmiles(found.smiles) is not None
    parse_smiles(found.smiles, allow_salt=found.metal)
