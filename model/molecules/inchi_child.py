"""A separate process that reads InChIs: one a line in; out, a line with SMILES and whether its hydrogens are certain.

The InChI library writes past its memory on some damaged texts, so it never runs in the service itself. This file is
run by its path; it imports nothing of scpalm.
"""

from __future__ import annotations

import re
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rdkit.Chem import Mol

MAX_BYTES = 2 << 30
MAX_SECONDS = 20


def certain(inchi: str, molecule: Mol) -> bool:
    """Whether every hydrogen that the InChI leaves open is that of an acid, where both places are the same.

    RDKit numbers the atoms as the InChI does.
    """
    layer = re.search(r"/h([^/]*)", inchi)
    groups = re.findall(r"\(H\d*-?,([\d,]+)\)", layer[1]) if layer else []
    if groups and (";" in inchi or "*" in inchi):
        return False
    for group in groups:
        atoms = [molecule.GetAtomWithIdx(int(number) - 1) for number in group.split(",")]
        centres = [{other.GetIdx() for other in atom.GetNeighbors()} for atom in atoms]
        if any(atom.GetAtomicNum() != 8 for atom in atoms) or not set.intersection(*centres):
            return False
    return True


def main() -> None:
    """Read standard input to its end."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    with BlockLogs():
        for line in sys.stdin:
            molecule = Chem.MolFromInchi(line.strip())
            shown = "" if molecule is None else f"{Chem.MolToSmiles(molecule)} {int(certain(line, molecule))}"
            print(shown, flush=True)


if __name__ == "__main__":
    main()
