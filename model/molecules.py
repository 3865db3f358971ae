"""SMILES -> molecular graph: the 75 atom features of DeepChem's ConvMol, the bonds, and the normalised adjacency.

Feature order after Ramsundar et al., DeepChem ``ConvMolFeaturizer`` (no chirality, hydrogens implicit), which DeepCDR
(Liu et al. 2020) reads. RDKit is imported when the first molecule is read, not before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError

if TYPE_CHECKING:
    from rdkit.Chem import Atom, Mol

MAX_SMILES = 1000
MAX_HEAVY_ATOMS = 200

# Anything else is 'Unknown', the last of the 44 places.
ELEMENTS = [
    "C",
    "N",
    "O",
    "S",
    "F",
    "Si",
    "P",
    "Cl",
    "Br",
    "Mg",
    "Na",
    "Ca",
    "Fe",
    "As",
    "Al",
    "I",
    "B",
    "V",
    "K",
    "Tl",
    "Yb",
    "Sb",
    "Sn",
    "Ag",
    "Pd",
    "Co",
    "Se",
    "Ti",
    "Zn",
    "H",
    "Li",
    "Ge",
    "Cu",
    "Au",
    "Ni",
    "Cd",
    "In",
    "Mn",
    "Zr",
    "Cr",
    "Pt",
    "Hg",
    "Pb",
]
HYBRIDIZATIONS = ("SP", "SP2", "SP3", "SP3D", "SP3D2")
MOST_DEGREE, MOST_IMPLICIT_VALENCE, MOST_HYDROGENS = 10, 6, 4

# Name and width of each block of features, in order. One-hot but for charge, radical electrons and aromatic; the
# last place of element, implicit_valence, hybridization and hydrogens also takes every value beyond it.
FEATURE_BLOCKS: tuple[tuple[str, int], ...] = (
    ("element", len(ELEMENTS) + 1),
    ("degree", MOST_DEGREE + 1),
    ("implicit_valence", MOST_IMPLICIT_VALENCE + 1),
    ("formal_charge", 1),
    ("radical_electrons", 1),
    ("hybridization", len(HYBRIDIZATIONS)),
    ("aromatic", 1),
    ("hydrogens", MOST_HYDROGENS + 1),
)
NUM_FEATURES = sum(width for _, width in FEATURE_BLOCKS)


class MoleculeError(InputError):
    """A drug whose SMILES cannot be used; the detail names the drug and the reason."""

    def __init__(self, code: str, drug: str, reason: str, *, mend: str) -> None:
        super().__init__(code, f"Drug '{drug[:80]}' {reason}", mend=mend, field="drugs")
        self.drug = drug
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (self.code, self.drug, self.reason, self.mend)


@dataclass(frozen=True, eq=False)
class MoleculeGraph:
    """Heavy atoms and bonds of one molecule.

    Attributes:
        features: ``[atoms, 75]`` int8, see ``FEATURE_BLOCKS``.
        bonds: ``[bonds, 2]`` int32, each bond once, lower atom first.
        canonical: RDKit's canonical SMILES, which says whether two inputs are the same molecule.
    """

    features: NDArray[np.int8]
    bonds: NDArray[np.int32]
    canonical: str

    @property
    def num_atoms(self) -> int:
        return len(self.features)


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """Atoms of several molecules one after the other, with ``D^-1/2 (A + I) D^-1/2`` as a list of entries.

    Attributes:
        features: ``[atoms, 75]`` float32.
        row, column: ``[entries]`` int64. weight: ``[entries]`` float32; the entry (row, column) of the adjacency.
        molecule: ``[atoms]`` int64, ascending. num_molecules: also those are counted that have no atom.
    """

    features: NDArray[np.float32]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    weight: NDArray[np.float32]
    molecule: NDArray[np.int64]
    num_molecules: int


def parse_smiles(smiles: str, *, drug: str | None = None, allow_salt: bool = False) -> MoleculeGraph:
    """Read one SMILES; ``drug`` is what errors call it (default: the SMILES itself).

    ``allow_salt`` keeps all parts of a salt or mixture as one graph, as DeepCDR's own table of drugs does; from a user
    such a SMILES is refused, for which part acts is not ours to guess. Raises MoleculeError.
    """
    name = drug or smiles
    molecule = _molecule(smiles, name)
    if not allow_salt and "." in smiles:
        raise MoleculeError(
            "salt",
            name,
            "has more than one part (a salt or a mixture).",
            mend="Send the SMILES of the active part alone, neutral where it can be.",
        )
    if any(atom.GetAtomicNum() == 0 for atom in molecule.GetAtoms()):
        raise MoleculeError(
            "polymer",
            name,
            "has an open end or a placeholder atom ('*'), as a polymer or a fragment has.",
            mend="Send one whole molecule.",
        )
    heavy = molecule.GetNumHeavyAtoms()
    if not 1 <= heavy <= MAX_HEAVY_ATOMS:
        reason = f"has {heavy} heavy atoms; the model reads 1 to {MAX_HEAVY_ATOMS}."
        raise MoleculeError("molecule-size", name, reason, mend="Send a small molecule.")
    return _graph(molecule)


def batch_graphs(graphs: Sequence[MoleculeGraph]) -> GraphBatch:
    """Several molecules as one graph of separate parts, so that all are encoded in one pass."""
    atoms = [graph.num_atoms for graph in graphs]
    first = np.concatenate([[0], np.cumsum(atoms)]).astype(np.int64)
    bonds = [graph.bonds.astype(np.int64) + start for graph, start in zip(graphs, first[:-1], strict=True)]
    low, high = np.concatenate([np.zeros((0, 2), np.int64), *bonds]).T
    own = np.arange(first[-1])
    row, column = np.concatenate([own, low, high]), np.concatenate([own, high, low])
    degree = np.bincount(row, minlength=len(own)).astype(np.float64)  # of A + I
    # Sorted by row and column: an atom's sum runs in one order whatever stands before it.
    order = np.lexsort((column, row))
    row, column = row[order], column[order]
    features = [np.zeros((0, NUM_FEATURES), np.int8), *(graph.features for graph in graphs)]
    return GraphBatch(
        np.concatenate(features).astype(np.float32),
        row,
        column,
        (1.0 / np.sqrt(degree[row] * degree[column])).astype(np.float32),
        np.repeat(np.arange(len(graphs)), atoms),
        len(graphs),
    )


def _molecule(smiles: str, name: str) -> Mol:
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    if not smiles.strip():
        raise MoleculeError("empty-smiles", _shown(name), "has an empty SMILES.", mend="Send a SMILES, e.g. CCO.")
    if len(smiles) > MAX_SMILES:
        reason = f"has a SMILES of {len(smiles):,} characters; {MAX_SMILES:,} are read."
        raise MoleculeError("smiles-too-long", name, reason, mend="Send a small molecule.")
    if not smiles.isascii() or not smiles.isprintable() or any(c.isspace() for c in smiles):
        reason = "has a SMILES with a space, a control character or one that is not ASCII."
        raise MoleculeError("bad-smiles", name, reason, mend="Send the SMILES alone, without a name behind it.")
    with BlockLogs():  # RDKit writes its complaints to stderr
        parsed = Chem.MolFromSmiles(smiles, sanitize=False)
        if parsed is None:
            raise MoleculeError("bad-smiles", name, "is not valid SMILES.", mend="Check brackets and ring closures.")
        if parsed.GetNumAtoms() > 5 * MAX_HEAVY_ATOMS:
            raise MoleculeError("molecule-size", name, "has too many atoms.", mend="Send a small molecule.")
        problems = Chem.DetectChemistryProblems(parsed)
        if problems:
            reason = f"is not a possible molecule: {problems[0].Message()}."
            raise MoleculeError("impossible-molecule", name, reason, mend="Check charges, bonds and aromatic rings.")
        # Read again, so that explicit hydrogens are removed as usual.
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        raise MoleculeError("bad-smiles", name, "is not valid SMILES.", mend="Check brackets and ring closures.")
    return molecule


def _rebuild(code: str, drug: str, reason: str, mend: str) -> MoleculeError:
    return MoleculeError(code, drug, reason, mend=mend)


def _shown(name: str) -> str:
    return name.strip() or "(unnamed)"


def _graph(molecule: Mol) -> MoleculeGraph:
    from rdkit import Chem

    features = np.stack([_atom_features(atom) for atom in molecule.GetAtoms()])
    ends = [sorted((bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())) for bond in molecule.GetBonds()]
    bonds = np.array(sorted(ends), dtype=np.int32).reshape(-1, 2)
    return MoleculeGraph(features, bonds, Chem.MolToSmiles(molecule))


def _atom_features(atom: Atom) -> NDArray[np.int8]:
    from rdkit.Chem import ValenceType

    symbol, hybrid = atom.GetSymbol(), str(atom.GetHybridization())
    return np.concatenate(
        [
            _one_hot(ELEMENTS.index(symbol) if symbol in ELEMENTS else len(ELEMENTS), len(ELEMENTS) + 1),
            _one_hot(atom.GetDegree(), MOST_DEGREE + 1),
            _one_hot(atom.GetValence(ValenceType.IMPLICIT), MOST_IMPLICIT_VALENCE + 1),
            np.array([atom.GetFormalCharge(), atom.GetNumRadicalElectrons()], dtype=np.int8),
            _one_hot(HYBRIDIZATIONS.index(hybrid) if hybrid in HYBRIDIZATIONS else 4, len(HYBRIDIZATIONS)),
            np.array([atom.GetIsAromatic()], dtype=np.int8),
            _one_hot(atom.GetTotalNumHs(), MOST_HYDROGENS + 1),
        ]
    )


def _one_hot(value: int, width: int) -> NDArray[np.int8]:
    place = np.zeros(width, dtype=np.int8)
    place[min(value, width - 1)] = 1
    return place
