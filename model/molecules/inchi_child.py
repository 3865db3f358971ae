"""A process of its own that reads InChIs: one a line in, one line of SMILES (or nothing) out.

The InChI library writes past its memory on some damaged texts, so it never runs in the service itself. This file is
run by its path; it imports nothing of scpalm.
"""

from __future__ import annotations

import resource
import sys

MAX_BYTES = 2 << 30
MAX_SECONDS = 20


def main() -> None:
    """Read standard input to its end."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    with BlockLogs():
        for line in sys.stdin:
            molecule = Chem.MolFromInchi(line.strip())
            print("" if molecule is None else Chem.MolToSmiles(molecule), flush=True)


if __name__ == "__main__":
    main()
