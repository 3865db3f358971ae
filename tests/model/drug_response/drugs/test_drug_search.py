"""Drugs by what people write: names with salts and notes, ids, structures in any form. Never a guess."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rdkit import Chem
from rdkit.Chem.MolStandardize import rdMolStandardize

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_search import split_list
from scpalm.model.drug_response.drugs.drug_table import DrugTable
from scpalm.model.drug_response.drugs.structures import DOUBTS
from scpalm.model.errors import InputError

SHIPPED = DrugTable.load(DEFAULT_BUNDLE / "drugs.parquet")


def found(text: str) -> str:
    """Names of the known drugs in a text; a new drug is 'new'."""
    parts = SHIPPED.search(split_list(text, SHIPPED.known))
    return ", ".join(part.drug.name if part.drug.known else "new" for part in parts)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Imatinib mesylate", "Imatinib"),
        ("Erlotinib HCl", "Erlotinib"),
        ("Lapatinib (GW-572016) Ditosylate", "Lapatinib"),
        ("Sunitinib L-malate", "Sunitinib"),
        ("Gemcitabine 2HCl", "Gemcitabine"),
        ("Ruxolitinib phosphate", "Ruxolitinib"),
        ("methotrexate sodium", "Methotrexate"),
        ("Obatoclax", "Obatoclax Mesylate"),
        ("Nutlin-3a", "Nutlin-3a (-)"),
        ("(-)-Nutlin-3", "Nutlin-3a (-)"),
        ("(+)-JQ1", "JQ1"),
        ("Bleomycin (50 uM)", "Bleomycin"),
        ("Imatinib, 10 µM", "Imatinib"),
        ("Cisplatin (rescreen)", "Cisplatin"),
        ("Bortezomib [Velcade]", "Bortezomib"),
        ("17-AAG", "Tanespimycin"),
        ("PF 562,271", "PF-562271"),
        ("Erlotinib®", "Erlotinib"),
        ("Ｅｒｌｏｔｉｎｉｂ", "Erlotinib"),
        ("AZD\u200b8055", "AZD8055"),
        ("176870.0", "Erlotinib"),
        ("PubChem CID: 176870", "Erlotinib"),
        ("5284616", "Rapamycin"),
        ("AAKJLRGGTJKAMG-UHFFFAOYSA-N", "Erlotinib"),
        ('["Erlotinib", "Gefitinib"]', "Erlotinib, Gefitinib"),
        ("['Erlotinib', 5291]", "Erlotinib, Imatinib"),
        ("erlotinib, gefitinib", "Erlotinib, Gefitinib"),
        ("smiles:CNO", "new"),
        ("C[N+](C)(C)C", "new"),
    ],
)
def test_a_name_is_read(text: str, name: str) -> None:
    assert found(text) == name


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        ("CCCP", "name-or-smiles", "smiles:CCCP"),
        ("BSO", "name-or-smiles", "name"),
        ("FCCP", "name-or-smiles", "smiles:"),
        ("Imatnib", "unknown-drug", "Did you mean 'Imatinib'"),
        ("Erlotinib (liposomal)", "unknown-drug", "Did you mean 'Erlotinib'"),
        ("Etoposide phosphate", "unknown-drug", "'Etoposide'"),  # an ester, not a salt
        ("navitoclax:gemcitabine (1:1 mol/mol)", "drug-mixture", "one drug at a time"),
        ("Erlotinib + Gefitinib", "drug-mixture", "Erlotinib, Gefitinib"),
        ("Erlotinib;Gefitinib", "drug-list", "commas"),
        ("C[N (C)(C)C", "bad-smiles", "%2B"),
        ("CC(=O)O vinegar", "bad-smiles", "without a name after it"),
        ("5291.5", "unknown-drug", "5291.5"),
        ("Erlotinib\0", "bad-drug-text", "control character"),
        ("AAAAAAAAAAAAAA-UHFFFAOYSA-N", "unknown-inchikey", "SMILES"),
        ("Trastuzumab", "antibody", "no small-molecule structure"),
        ("O=C1O[Pt](N)(N)OC(=O)C12CCC2", "metal-complex", "metal complex"),
        ("[C][C][=Branch1][C][=O][O]", "selfies", "SELFIES"),
        (Chem.MolToInchi(Chem.MolFromSmiles("CC(=O)Nc1ccc(O)cc1")), "inchi-tautomer", "SMILES in place of the InChI"),
    ],
)
def test_what_is_not_certain_is_refused_with_advice(text: str, code: str, word: str) -> None:
    with pytest.raises(InputError) as caught:
        found(text)
    assert caught.value.code == code and word in str(caught.value) and caught.value.field == "drugs"


@pytest.mark.parametrize("drug", SHIPPED.drugs, ids=lambda drug: drug.name)
def test_every_known_drug_is_found_by_any_form_of_its_structure(drug: Drug) -> None:
    doubt = drug.doubt
    if doubt is not None and not doubt.true_smiles:
        pytest.skip("no small molecule")
    smiles = doubt.true_smiles if doubt else max(drug.smiles.split("."), key=len)
    if "Pt" in drug.smiles:
        smiles = "N[Pt](N)(Cl)Cl"
    molecule = Chem.MolFromSmiles(smiles)
    forms = [smiles, Chem.MolToSmiles(molecule, doRandom=True), f"{smiles}.Cl" if "Pt" not in smiles else smiles]
    stereo = Chem.RWMol(molecule)
    for atom in stereo.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
        if atom.GetHybridization() == Chem.HybridizationType.SP3 and atom.GetDegree() > 2:
            atom.SetChiralTag(Chem.ChiralType.CHI_TETRAHEDRAL_CCW)
    forms.append(Chem.MolToSmiles(stereo))
    if "Pt" not in smiles and "+" not in smiles:  # of a cation's forms, a few are refused
        enumerator = rdMolStandardize.TautomerEnumerator()
        enumerator.SetMaxTransforms(50)
        enumerator.SetMaxTautomers(20)
        forms += sorted(enumerator.Enumerate(molecule).smiles)[:4]
    for form in forms:
        assert SHIPPED.find(form) is drug, form


def test_all_known_drugs_are_found_by_inchi() -> None:
    drugs = [drug for drug in SHIPPED.drugs if "Pt" not in drug.smiles and "[N]" not in drug.smiles]
    drugs = [drug for drug in drugs if drug.name != "Cetuximab"]  # an antibody
    inchis = [Chem.MolToInchi(Chem.MolFromSmiles(max(drug.smiles.split("."), key=len))) for drug in drugs]
    assert [one.drug.name for one in SHIPPED.search(inchis)] == [drug.name for drug in drugs]


def test_by_name_every_known_drug_keeps_the_graph_it_was_learned_with() -> None:
    assert all(SHIPPED.find(drug.name) is drug and SHIPPED.find(str(drug.pubchem_id)) is drug for drug in SHIPPED.drugs)


def test_doubtful_structures_are_marked_and_the_true_one_finds_the_drug() -> None:
    as_published = (
        replace(drug, smiles=DOUBTS[drug.pubchem_id].published) if drug.pubchem_id in DOUBTS else drug
        for drug in SHIPPED.drugs
    )
    table = DrugTable(list(as_published))
    doubtful = {drug.name: drug.doubt.standing for drug in table.drugs if drug.doubt}
    assert doubtful == {
        "Rapamycin": "unknown",
        "Cetuximab": "unknown",
        "QS11": "unknown",
        "BMS-509744": "doubtful",
        "Tubastatin A": "doubtful",
    }
    for doubt in DOUBTS.values():
        if doubt.true_smiles:
            assert table.find(doubt.true_smiles).pubchem_id in DOUBTS
        else:  # the published structure of an antibody is another compound, and a new drug
            assert not table.find(f"smiles:{doubt.published}").known


def test_a_bond_isomer_of_a_known_drug_is_no_tautomer_of_it() -> None:
    safrole, isosafrole = "C=CCc1ccc2c(c1)OCO2", "CC=Cc1ccc2c(c1)OCO2"
    table = DrugTable([Drug("Safrole", safrole, 5144, known=True, in_training=True)])
    assert table.find(safrole).known
    with pytest.raises(InputError, match="other double bonds"):
        table.find(isosafrole)
    assert not table.find(f"smiles:{isosafrole}").known


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(SHIPPED.drugs), st.data())
def test_dashes_widths_case_and_marks_that_cannot_be_seen_change_no_name(drug: Drug, data: st.DataObject) -> None:
    dash = data.draw(st.sampled_from("-\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"))
    unseen = data.draw(st.sampled_from(["", "\u200b", "\ufeff", "\u2060", "\u00ad"]))
    name = data.draw(st.sampled_from([drug.name, drug.name.upper(), drug.name.lower()]))
    text = unseen.join(name).replace("-", dash)
    if data.draw(st.booleans()):
        text = "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text)
    assert SHIPPED.find(f" {text} ") is drug


def test_a_long_list_is_divided_in_few_steps() -> None:
    """Each step looks a few parts ahead, not to the end of the list."""
    steps = 0

    def is_known(text: str) -> bool:
        nonlocal steps
        steps += 1
        return False

    names = [f"drug{number}" for number in range(1_000)]
    assert split_list(",".join(names), is_known) == names
    assert steps <= 20 * len(names)
