"""Whether two structures are one compound, regardless of tautomer, charge and stereo marks."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from scpalm.model.molecules.reading import is_metal

if TYPE_CHECKING:
    from rdkit.Chem import Mol

# Bounds of the search for tautomers: some 0.05 s for a molecule of 100 atoms. It runs only for pairs with one key.
_MAX_TRANSFORMS, _MAX_TAUTOMERS = 100, 60


def identity_key(molecule: Mol) -> str:
    """Elements, connections, and hydrogens less charge: all that tautomers and charge states have in common.

    Of a metal complex, the hydrogens are left out too, because they depend on how its bonds were drawn. Two compounds
    with one key are usually the same; `same_compound` decides.
    """
    from rdkit import Chem

    bare = Chem.RWMol(molecule)
    hydrogens, metal = 0, False
    for atom in bare.GetAtoms():
        hydrogens += atom.GetTotalNumHs() - atom.GetFormalCharge()
        metal |= is_metal(atom.GetAtomicNum())
        atom.SetFormalCharge(0)
        atom.SetNumExplicitHs(0)
        atom.SetNoImplicit(True)
        atom.SetNumRadicalElectrons(0)
        atom.SetIsAromatic(False)
    for bond in bare.GetBonds():
        bond.SetBondType(Chem.BondType.SINGLE)
        bond.SetIsAromatic(False)
    return f"{Chem.MolToSmiles(bare)} {'metal' if metal else hydrogens}"


def same_compound(first: str, second: str) -> bool:
    """Whether two standardised SMILES with one `identity_key` are tautomers or mesomers of each other."""
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    if first == second:
        return True
    with BlockLogs():
        one, other = Chem.MolFromSmiles(first), Chem.MolFromSmiles(second)
        if any(is_metal(atom.GetAtomicNum()) for atom in one.GetAtoms()):
            return True
        return Chem.MolToInchi(one) == Chem.MolToInchi(other) or bool(_tautomers(first) & _tautomers(second))


@lru_cache(1024)
def _tautomers(smiles: str) -> frozenset[str]:
    from rdkit import Chem
    from rdkit.Chem.MolStandardize import rdMolStandardize

    enumerator = rdMolStandardize.TautomerEnumerator()
    enumerator.SetMaxTransforms(_MAX_TRANSFORMS)
    enumerator.SetMaxTautomers(_MAX_TAUTOMERS)
    enumerator.SetRemoveBondStereo(True)
    return frozenset(enumerator.Enumerate(Chem.MolFromSmiles(smiles)).smiles)


def has_hydroxyl(smiles: str) -> bool:
    """Whether a structure has an alcohol or phenol, whose esters are named like salts."""
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(smiles)
    return molecule is None or molecule.HasSubstructMatch(Chem.MolFromSmarts("[OX2H;!$(O[C,P,S]=O)]"))
