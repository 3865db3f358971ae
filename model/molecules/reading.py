"""SMILES text to an RDKit molecule, with errors that name what was sent instead."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scpalm.model.molecules.error import MoleculeError

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MAX_SMILES = 1000
MAX_HEAVY_ATOMS = 200

# Everything else is a metal. Metalloids of drugs (boron, silicon, arsenic, selenium) are not.
_NONMETALS = frozenset([0, 1, 2, *range(5, 11), *range(14, 19), *range(32, 37), *range(52, 55)])
# [Branch1], [Ring1], [=Branch1], [=C], [#N], [/C]: tokens that SELFIES has and SMILES has not.
_SELFIES_TOKEN = re.compile(r"\[(?:[=#/\\]?(?:Branch|Ring)\d|[=#/\\][A-Z][^\]]*)\]")
_ONLY_BRACKETS = re.compile(r"(?:\[[^\[\]]+\]\.?)+")


def is_metal(atomic_number: int) -> bool:
    """Whether an element is a metal, whose bonds in SMILES are a matter of taste."""
    return atomic_number not in _NONMETALS


def is_selfies(text: str) -> bool:
    """Whether the text is SELFIES: bracketed tokens only, one of them unknown to SMILES."""
    return _ONLY_BRACKETS.fullmatch(text) is not None and _SELFIES_TOKEN.search(text) is not None


def read_smiles(smiles: str, name: str) -> Mol:
    """The molecule of a SMILES, without explicit hydrogens; bonds to metals are broken. Raises MoleculeError."""
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    _check_text(smiles, name)
    with BlockLogs():  # RDKit would log errors to stderr
        parsed = Chem.MolFromSmiles(smiles, sanitize=False)
        if parsed is None:
            raise _bad(name)
        if parsed.GetNumAtoms() > 5 * MAX_HEAVY_ATOMS:
            raise MoleculeError("molecule-size", name, "has too many atoms.", hint="Send a small molecule.")
        disconnected = _without_metal_bonds(parsed)
        problems = Chem.DetectChemistryProblems(disconnected or parsed)
        if problems:
            reason = f"is not a valid molecule: {problems[0].Message()}."
            raise MoleculeError("impossible-molecule", name, reason, hint="Check charges, bonds and aromatic rings.")
        if disconnected is not None:
            Chem.SanitizeMol(disconnected)
            return Chem.RemoveHs(disconnected)
        # Parse again with sanitization, which removes explicit hydrogens.
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise _bad(name)
    return molecule


def _check_text(smiles: str, name: str) -> None:
    if not smiles.strip():
        shown = name.strip() or "(unnamed)"
        raise MoleculeError("empty-smiles", shown, "has an empty SMILES.", hint="Send a SMILES, e.g. CC(=O)O.")
    if len(smiles) > MAX_SMILES:
        reason = f"has a SMILES of {len(smiles):,} characters; the limit is {MAX_SMILES:,}."
        raise MoleculeError("smiles-too-long", name, reason, hint="Send a small molecule.")
    if not smiles.isascii() or not smiles.isprintable() or any(c.isspace() for c in smiles):
        reason = "has a SMILES with a space, a control character or a non-ASCII character."
        hint = (
            "Send only the SMILES, without a name after it. In a URL, write '+' as %2B, '%' as %25 and '#' as %23, "
            "or send `drugs` in the body."
        )
        raise MoleculeError("bad-smiles", name, reason, hint=hint)
    if is_selfies(smiles):
        hint = "Convert it: selfies.decoder(text) in Python gives the SMILES."
        raise MoleculeError("selfies", name, "is SELFIES, not SMILES.", hint=hint)


def _bad(name: str) -> MoleculeError:
    return MoleculeError("bad-smiles", name, "is not valid SMILES.", hint="Check brackets and ring closures.")


def _without_metal_bonds(parsed: Mol) -> Mol | None:
    """A copy without the bonds of metals to N, O, halogens and the like; None where there are none.

    This comes before the check of valences: ammine ligands are often written with a fourth covalent bond.
    """
    from rdkit.Chem.MolStandardize import rdMolStandardize

    metals = [atom for atom in parsed.GetAtoms() if is_metal(atom.GetAtomicNum()) and atom.GetDegree()]
    if not metals:
        return None
    parsed.UpdatePropertyCache(strict=False)
    try:
        return rdMolStandardize.MetalDisconnector().Disconnect(parsed)
    except (RuntimeError, ValueError):  # RDKit's own exceptions; the check of valences then says what is wrong
        return None
