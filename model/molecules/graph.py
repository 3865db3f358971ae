"""SMILES -> molecular graph: the 75 atom features of DeepChem's ConvMol, the bonds, and the normalised adjacency.

The order of the features is that of DeepChem's ``ConvMolFeaturizer`` (Ramsundar et al.; no chirality, implicit
hydrogens), which DeepCDR (Liu et al. 2020) uses. RDKit is slow to import, so it is loaded with the first molecule.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scpalm.model.molecules.error import MoleculeError
from scpalm.model.molecules.reading import MAX_HEAVY_ATOMS, read_smiles

if TYPE_CHECKING:
    from rdkit.Chem import Atom, Mol

# Any other element is 'Unknown', the last of the 44 one-hot positions.
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
MAX_DEGREE, MAX_IMPLICIT_VALENCE, MAX_HYDROGENS = 10, 6, 4

# Name and width of each block of features, in order. All are one-hot except charge, radical electrons and aromatic.
# The last position of element, implicit_valence, hybridization and hydrogens also stands for every larger value.
FEATURE_BLOCKS: tuple[tuple[str, int], ...] = (
    ("element", len(ELEMENTS) + 1),
    ("degree", MAX_DEGREE + 1),
    ("implicit_valence", MAX_IMPLICIT_VALENCE + 1),
    ("formal_charge", 1),
    ("radical_electrons", 1),
    ("hybridization", len(HYBRIDIZATIONS)),
    ("aromatic", 1),
    ("hydrogens", MAX_HYDROGENS + 1),
)
NUM_FEATURES = sum(width for _, width in FEATURE_BLOCKS)


@dataclass(frozen=True, eq=False)
class MoleculeGraph:
    """Heavy atoms and bonds of one molecule.

    Attributes:
        features: ``[atoms, 75]`` int8, see ``FEATURE_BLOCKS``.
        bonds: ``[bonds, 2]`` int32, each bond once, the lower atom first.
        canonical: RDKit's canonical SMILES. Two inputs with the same one are the same molecule.
    """

    features: NDArray[np.int8]
    bonds: NDArray[np.int32]
    canonical: str

    @property
    def num_atoms(self) -> int:
        return len(self.features)


@dataclass(frozen=True, eq=False)
class GraphBatch:
    """The concatenated atoms of several molecules, and the entries of ``D^-1/2 (A + I) D^-1/2``.

    Attributes:
        features: ``[atoms, 75]`` float32.
        row, column: ``[entries]`` int64, position of each non-zero entry of the adjacency.
        weight: ``[entries]`` float32, its value.
        molecule: ``[atoms]`` int64, the molecule of each atom, ascending.
        num_molecules: number of molecules, including those without atoms.
    """

    features: NDArray[np.float32]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    weight: NDArray[np.float32]
    molecule: NDArray[np.int64]
    num_molecules: int


def parse_smiles(smiles: str, *, drug: str | None = None, allow_salt: bool = False) -> MoleculeGraph:
    """Parse one SMILES.

    Args:
        smiles: the SMILES.
        drug: the drug's name in error messages; default: the SMILES.
        allow_salt: keep all parts of a salt or mixture as one graph, as DeepCDR's drug table does. Otherwise a salt is
            refused, because which part is active cannot be guessed.

    Raises MoleculeError.
    """
    name = drug or smiles
    molecule = read_smiles(smiles, name)
    if not allow_salt and "." in smiles:
        raise MoleculeError(
            "salt",
            name,
            "has more than one part (a salt or a mixture).",
            hint="Send the SMILES of the active part only, in its neutral form if it has one.",
        )
    if any(atom.GetAtomicNum() == 0 for atom in molecule.GetAtoms()):
        raise MoleculeError(
            "polymer",
            name,
            "has an open end or a placeholder atom ('*'), like a polymer or a fragment.",
            hint="Send one complete molecule.",
        )
    heavy = molecule.GetNumHeavyAtoms()
    if not 1 <= heavy <= MAX_HEAVY_ATOMS:
        reason = f"has {heavy} heavy atoms; the model accepts 1 to {MAX_HEAVY_ATOMS}."
        raise MoleculeError("molecule-size", name, reason, hint="Send a small molecule.")
    return _graph(molecule)


def batch_graphs(graphs: Sequence[MoleculeGraph]) -> GraphBatch:
    """Join several molecules into one disconnected graph, so that all are encoded in one pass."""
    atoms = [graph.num_atoms for graph in graphs]
    first = np.concatenate([[0], np.cumsum(atoms)]).astype(np.int64)
    bonds = [graph.bonds.astype(np.int64) + start for graph, start in zip(graphs, first[:-1], strict=True)]
    low, high = np.concatenate([np.zeros((0, 2), np.int64), *bonds]).T
    own = np.arange(first[-1])
    row, column = np.concatenate([own, low, high]), np.concatenate([own, high, low])
    degree = np.bincount(row, minlength=len(own)).astype(np.float64)  # of A + I
    # Sort by row and column, so that the sum over an atom's neighbours does not depend on the other molecules.
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
            _one_hot(atom.GetDegree(), MAX_DEGREE + 1),
            _one_hot(atom.GetValence(ValenceType.IMPLICIT), MAX_IMPLICIT_VALENCE + 1),
            np.array([atom.GetFormalCharge(), atom.GetNumRadicalElectrons()], dtype=np.int8),
            _one_hot(HYBRIDIZATIONS.index(hybrid) if hybrid in HYBRIDIZATIONS else 4, len(HYBRIDIZATIONS)),
            np.array([atom.GetIsAromatic()], dtype=np.int8),
            _one_hot(atom.GetTotalNumHs(), MAX_HYDROGENS + 1),
        ]
    )


def _one_hot(value: int, width: int) -> NDArray[np.int8]:
    encoded = np.zeros(width, dtype=np.int8)
    encoded[min(value, width - 1)] = 1
    return encoded
