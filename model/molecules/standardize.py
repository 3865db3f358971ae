"""One form for each molecule: without stereo marks, labels, charges and counter-ions, none of which the model reads.

The features know no stereo, but brackets change RDKit's implicit valence: ``[C@@H]`` would be another atom than ``C``.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from scpalm.model.molecules.error import MoleculeError
from scpalm.model.molecules.identity import identity_key
from scpalm.model.molecules.reading import is_metal, read_smiles

if TYPE_CHECKING:
    from rdkit.Chem import Mol

# Acids and bases of salts, in addition to the ions and solvents that RDKit's FragmentRemover knows. Neutral forms.
_SALT_FORMERS = (
    "OCl(=O)(=O)=O CCC(=O)O OC(=O)C(=O)O OC(=O)CC(=O)O OC(=O)CCC(=O)O OC(=O)C=CC(=O)O OC(CC(=O)O)C(=O)O "
    "OC(C(O)C(=O)O)C(=O)O OC(CC(=O)O)(CC(=O)O)C(=O)O CC(O)C(=O)O OCC(=O)O OCC(O)C(O)C(O)C(O)C(=O)O OC(=O)c1ccccc1 "
    "OC(=O)c1ccccc1O OC(=O)C(O)c1ccccc1 CCS(=O)(=O)O OS(=O)(=O)c1ccccc1 Cc1ccc(cc1)S(=O)(=O)O OCCS(=O)(=O)O "
    "CC1(C)C2CCC1(CS(=O)(=O)O)C(=O)C2 OS(=O)(=O)CCS(=O)(=O)O OS(=O)(=O)c1ccc2ccccc2c1 OC(=O)c1ccc2ccccc2c1O "
    "OC(=O)c1cc2ccccc2c(Cc2c(O)c(C(=O)O)cc3ccccc23)c1O OC(=O)C(F)(F)F CNCC(O)C(O)C(O)C(O)CO NC(CO)(CO)CO CCNCC "
    "CCN(CC)CC C[N+](C)(C)CCO NCCCCC(N)C(=O)O NC(=N)NCCCC(N)C(=O)O NCCO C1CNCCN1 OC(=O)CCCCC(=O)O "
    "O=C1NS(=O)(=O)c2ccccc12 OS(=O)(=O)NC1CCCCC1 F[B-](F)(F)F OP(O)(O)=O OS(=O)(=O)O COS(=O)(=O)O"
)
# RDKit's default normaliser writes sulfoxides with charges; the published graphs have S=O.
_NORMAL_FORMS = (
    "Sulfoxide\t[S+;X3:1]-[O-;X1:2]>>[S+0:1]=[O+0:2]\n"
    "Sulfone\t[S+2;X4:1](-[O-;X1:2])-[O-;X1:3]>>[S+0:1](=[O+0:2])=[O+0:3]\n"
    "Phosphine oxide\t[P+;X4:1]-[O-;X1:2]>>[P+0:1]=[O+0:2]\n"
)
_LEAST_PARENT = 6  # heavy atoms of a molecule next to which an organic part counts as salt former or solvent
_tools = threading.local()


@dataclass(frozen=True)
class Standardized:
    """A molecule in its standard form.

    Attributes:
        smiles: canonical SMILES; RDKit reads it again.
        key: see `identity_key`.
        changes: what was done, in words; empty if nothing that the model could have read was changed.
        charged: whether it keeps charges other than those of nitro groups and N-oxides.
        metal: whether it is a complex of a metal. Then ``smiles`` has its parts.
    """

    smiles: str
    key: str
    changes: tuple[str, ...]
    charged: bool = False
    metal: bool = False


@lru_cache(4096)
def standardize(smiles: str, name: str) -> Standardized:
    """The standard form of a SMILES. ``name`` is the drug in error messages.

    Raises MoleculeError: no valid molecule, a radical, a polymer, or several active parts.
    """
    from rdkit.rdBase import BlockLogs

    molecule = read_smiles(smiles, name)
    _check_atoms(molecule, name)
    try:
        with BlockLogs():
            return _standardized(molecule, name)
    except MoleculeError:
        raise
    except (ValueError, RuntimeError) as error:  # some quinoid rings pass RDKit's check and fail at the next step
        raise _unreadable(name) from error


def _standardized(molecule: Mol, name: str) -> Standardized:
    from rdkit import Chem

    molecule, changes = _without_marks(molecule)
    parts = Chem.GetMolFrags(molecule, asMols=True)
    if any(_is_complex(part) for part in parts):
        whole = Chem.MolToSmiles(molecule)
        return Standardized(whole, identity_key(molecule), (*changes, "bonds to metals broken"), metal=True)
    neutral = [_neutral(part) for part in parts]
    if _written(neutral) != _written(parts):
        changes.append("charges neutralised")
    parent, removed = _parent(neutral, name)
    if removed:
        changes.append(f"counter-ions or solvent removed: {', '.join(removed)}")
    return Standardized(_readable(parent, name), identity_key(parent), tuple(changes), charged=_has_charges(parent))


def _check_atoms(molecule: Mol, name: str) -> None:
    if any(atom.GetAtomicNum() == 0 for atom in molecule.GetAtoms()):
        reason = "has an open end or a placeholder atom ('*'), like a polymer or a fragment."
        raise MoleculeError("polymer", name, reason, hint="Send one complete molecule.")
    for atom in molecule.GetAtoms():
        if atom.GetNumRadicalElectrons() and not is_metal(atom.GetAtomicNum()):
            raise MoleculeError(
                "radical",
                name,
                f"is a radical: atom {atom.GetIdx() + 1} ({atom.GetSymbol()}) has an unpaired electron or lacks "
                "hydrogens.",
                hint="In brackets, hydrogens must be written: [CH3], not [C]. If it is SELFIES, convert it to SMILES.",
            )


def _without_marks(molecule: Mol) -> tuple[Mol, list[str]]:
    """A copy without stereo marks, isotope labels and atom map numbers, and what was taken off."""
    from rdkit import Chem

    changes: list[str] = []
    if any(atom.GetAtomMapNum() for atom in molecule.GetAtoms()):
        changes.append("atom map numbers removed")
    if any(atom.GetIsotope() for atom in molecule.GetAtoms()):
        changes.append("isotope labels removed")
    for atom in molecule.GetAtoms():
        atom.SetAtomMapNum(0)
        atom.SetIsotope(0)
    plain = Chem.MolToSmiles(molecule, isomericSmiles=False)
    if plain != Chem.MolToSmiles(molecule):
        changes.append("stereo marks removed")
    Chem.RemoveStereochemistry(molecule)
    return Chem.RemoveHs(molecule), changes  # deuterium is a hydrogen now


def _is_complex(part: Mol) -> bool:
    """Whether a part has a transition metal, or a metal within a molecule. Na+ and the like are counter-ions."""
    metals = [atom for atom in part.GetAtoms() if is_metal(atom.GetAtomicNum())]
    return any(part.GetNumAtoms() > 1 or not _removed_by_rdkit(part) for _ in metals)


def _neutral(part: Mol) -> Mol:
    return _tool("uncharger").uncharge(_tool("normalizer").normalize(part))


def _parent(parts: list[Mol], name: str) -> tuple[Mol, list[str]]:
    """The one active part, and the SMILES of the others. Raises MoleculeError if there are several."""
    distinct = dict(zip(_written(parts), parts, strict=True))
    # The acid of sodium acetate is a salt former, too: never leave nothing.
    left = organic = {smiles: part for smiles, part in distinct.items() if not _has_no_carbon(part)} or distinct
    for is_companion in (_removed_by_rdkit, _is_salt_former):
        if len(left) > 1:
            left = {smiles: part for smiles, part in left.items() if not is_companion(part)} or left
    if any(part.GetNumHeavyAtoms() < _LEAST_PARENT for part in left.values()) and len(organic) > 1:
        left = organic  # of two small molecules, either may be the active one
    if len(left) != 1:
        shown = " and ".join(list(left)[:2])
        raise MoleculeError(
            "salt",
            name,
            f"has more than one part (a salt or a mixture): {shown[:120]}.",
            hint="Send the SMILES of the active part only, in its neutral form if it has one.",
        )
    (kept,) = left
    return left[kept], sorted(smiles for smiles in distinct if smiles != kept)


def _has_charges(part: Mol) -> bool:
    positive = [atom for atom in part.GetAtoms() if atom.GetFormalCharge() > 0]
    return any(not any(other.GetFormalCharge() < 0 for other in atom.GetNeighbors()) for atom in positive)


def _has_no_carbon(part: Mol) -> bool:
    return all(atom.GetAtomicNum() != 6 for atom in part.GetAtoms())


def _removed_by_rdkit(part: Mol) -> bool:
    return _tool("remover").remove(part).GetNumAtoms() == 0


def _is_salt_former(part: Mol) -> bool:
    return _written([part])[0] in _salt_formers()


@lru_cache(1)
def _salt_formers() -> frozenset[str]:
    from rdkit import Chem

    return frozenset(Chem.MolToSmiles(_neutral(Chem.MolFromSmiles(smiles))) for smiles in _SALT_FORMERS.split())


def _written(parts: Any) -> list[str]:
    from rdkit import Chem

    return [Chem.MolToSmiles(part) for part in parts]


def _readable(parent: Mol, name: str) -> str:
    """Canonical SMILES that reads back. RDKit writes some quinoid rings in a way that it refuses to read."""
    from rdkit import Chem

    smiles = Chem.MolToSmiles(parent)
    for _ in range(2):  # the second time, the form no longer depends on how the input was written
        again = Chem.MolFromSmiles(smiles)
        if again is None:
            raise _unreadable(name)
        smiles = Chem.MolToSmiles(again)
    return smiles


def _unreadable(name: str) -> MoleculeError:
    return MoleculeError(
        "unreadable-molecule",
        name,
        "has a ring whose bonds cannot be written without doubt.",
        hint="Send it with alternating single and double bonds (Kekule form), or as another tautomer.",
    )


def _tool(name: str) -> Any:
    """RDKit's tools, one of each for a thread: building them costs more than using them."""
    from rdkit.Chem.MolStandardize import rdMolStandardize

    if not hasattr(_tools, "uncharger"):
        _tools.uncharger = rdMolStandardize.Uncharger()
        parameters = rdMolStandardize.CleanupParameters()
        _tools.normalizer = rdMolStandardize.NormalizerFromData(_NORMAL_FORMS, parameters)
        _tools.remover = rdMolStandardize.FragmentRemover(leave_last=False)
    return getattr(_tools, name)
