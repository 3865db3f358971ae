"""One drug, known or new."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from scpalm.model.drug_response.drugs.structures import Doubt, doubt_of
from scpalm.model.molecules.graph import MoleculeGraph, parse_smiles

if TYPE_CHECKING:
    from rdkit.DataStructs import ExplicitBitVect


@dataclass(frozen=True)
class Drug:
    """One drug.

    Attributes:
        name: name in the table, or the text that a new drug was asked by.
        smiles: SMILES in the table, or the standardised SMILES of a new drug.
        pubchem_id: PubChem id, or None.
        targets, pathway: from GDSC, "" where unknown.
        synonyms: other names.
        known: whether it is in the table.
        in_training: whether the training data has responses to it.
    """

    name: str
    smiles: str
    pubchem_id: int | None = None
    targets: str = ""
    pathway: str = ""
    synonyms: tuple[str, ...] = ()
    known: bool = False
    in_training: bool = False

    @cached_property
    def graph(self) -> MoleculeGraph:
        """Molecular graph. Known drugs may be salts, as in DeepCDR's table; new ones may not. Raises MoleculeError."""
        return parse_smiles(self.smiles, drug=self.name, allow_salt=self.known)

    @cached_property
    def fingerprint(self) -> ExplicitBitVect:
        """Morgan fingerprint, radius 2, 2,048 bits. Raises MoleculeError."""
        from rdkit.Chem import MolFromSmiles
        from rdkit.Chem.rdFingerprintGenerator import GetMorganGenerator

        return GetMorganGenerator(radius=2, fpSize=2048).GetFingerprint(MolFromSmiles(self.graph.canonical))

    @cached_property
    def doubt(self) -> Doubt | None:
        """What is wrong with the structure in the table, or None."""
        return doubt_of(self.pubchem_id, self.smiles) if self.known else None
