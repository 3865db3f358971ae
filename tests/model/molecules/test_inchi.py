"""InChI is read where it says which atoms have hydrogens, in a process that may die."""

from __future__ import annotations

import pytest
from rdkit import Chem

from scpalm.model.molecules.error import MoleculeError
from scpalm.model.molecules.inchi import inchi_in, inchikey_block, read_inchis

IBUPROFEN = "CC(C)Cc1ccc(cc1)C(C)C(=O)O"
CAFFEINE = "Cn1cnc2c1c(=O)n(C)c(=O)n2C"
TEMOZOLOMIDE = "Cn1nnc2c(C(N)=O)ncn2c1=O"


def inchi(smiles: str) -> str:
    return str(Chem.MolToInchi(Chem.MolFromSmiles(smiles)))


def test_several_are_read_in_order_and_mobile_hydrogens_are_reported() -> None:
    acid, plain, amide = read_inchis([inchi(IBUPROFEN), inchi(CAFFEINE), inchi(TEMOZOLOMIDE)])
    assert acid.smiles == Chem.CanonSmiles(IBUPROFEN) and acid.certain
    assert plain.smiles == Chem.CanonSmiles(CAFFEINE) and plain.certain
    assert not amide.certain


def test_a_damaged_one_is_named() -> None:
    damaged = inchi(CAFFEINE).replace("c1-10", "c1-99")
    with pytest.raises(MoleculeError, match="cannot be read") as caught:
        read_inchis([inchi(IBUPROFEN), damaged])
    assert damaged in str(caught.value)


def test_texts_are_recognised() -> None:
    assert inchi_in(inchi(CAFFEINE).removeprefix("InChI=")) == inchi(CAFFEINE)
    assert inchi_in("InChI=1S/garbage") and inchi_in("Imatinib") is None
    assert inchikey_block("InChIKey=AAKJLRGGTJKAMG-UHFFFAOYSA-N") == "AAKJLRGGTJKAMG"
    assert inchikey_block("AAKJLRGGTJKAMG") is None
