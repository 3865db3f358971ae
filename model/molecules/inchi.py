"""InChI and InChIKey: recognised, and read where they say which atom has the hydrogens."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scpalm.model.molecules.error import MoleculeError

MAX_INCHI = 2000
_CHILD = Path(__file__).with_name("inchi_child.py")
_TIMEOUT_SECONDS = 30.0
_INCHI = re.compile(r"InChI\s*=\s*(\S+)|(1S?/(?=[A-Z0-9.]+/)\S+)", re.IGNORECASE)
_KEY = re.compile(r"(?:InChIKey\s*=\s*)?([A-Z]{14})-[A-Z]{8}[SN][A-Z]-[A-Z]", re.IGNORECASE)


def inchi_in(text: str) -> str | None:
    """The InChI that this text is, in its full form, or None."""
    match = _INCHI.fullmatch(text.strip())
    return f"InChI={match[1] or match[2]}" if match else None


def inchikey_block(text: str) -> str | None:
    """The first block of an InChIKey, which stands for the connections alone, or None if the text is no InChIKey."""
    match = _KEY.fullmatch(text.strip())
    return match[1].upper() if match else None


def inchikeys_of(smiles: Sequence[str]) -> list[str]:
    """The InChIKey of each structure of a table that is trusted, "" where there is none."""
    from rdkit import Chem
    from rdkit.rdBase import BlockLogs

    with BlockLogs():
        molecules = [Chem.MolFromSmiles(one) for one in smiles]
        return ["" if molecule is None else Chem.MolToInchiKey(molecule) for molecule in molecules]


@dataclass(frozen=True)
class ReadInchi:
    """What was read from an InChI: SMILES, and whether it says which atoms have hydrogens."""

    smiles: str
    certain: bool


def read_inchis(inchis: Sequence[str]) -> list[ReadInchi]:
    """Each InChI, read in a separate process. Raises MoleculeError for the first that cannot be read."""
    if not inchis:
        return []
    for inchi in inchis:
        if len(inchi) > MAX_INCHI or not inchi.isascii() or not inchi.isprintable():
            reason = f"is an InChI with over {MAX_INCHI:,} characters, or with a control or non-ASCII character."
            raise MoleculeError("bad-inchi", inchi, reason, hint="Send the InChI alone, or the SMILES.")
    command = [sys.executable, "-I", str(_CHILD)]
    try:
        text = "\n".join(inchis) + "\n"
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
        found = done.stdout.splitlines()
    except subprocess.TimeoutExpired as expired:
        output = expired.stdout or b""
        found = (output if isinstance(output, str) else output.decode(errors="replace")).splitlines()
    for place, inchi in enumerate(inchis):
        if place >= len(found) or not found[place]:
            hint = "Copy it again in full, or send the SMILES."
            raise MoleculeError("bad-inchi", inchi, "is an InChI that cannot be read.", hint=hint)
    return [ReadInchi(smiles, mark == "1") for smiles, _, mark in (line.partition(" ") for line in found)]
