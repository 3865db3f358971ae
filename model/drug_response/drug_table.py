"""Table of known drugs, found by name, PubChem id or SMILES. Any other valid SMILES is a new drug."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from scpalm.model.errors import BundleError, InputError
from scpalm.model.molecules import MoleculeError, MoleculeGraph, parse_smiles

if TYPE_CHECKING:
    from rdkit.DataStructs import ExplicitBitVect

MAX_DRUGS = 1000
_COLUMNS = ("pubchem_id", "name", "synonyms", "smiles", "targets", "pathway", "in_training")


@dataclass(frozen=True)
class Drug:
    """One drug.

    Attributes:
        name: name in the table, or the SMILES of a new drug.
        smiles: SMILES as given.
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


class DrugTable:
    """Known drugs in a fixed order. Lookup by name ignores case, spaces and hyphens."""

    def __init__(self, drugs: Sequence[Drug]) -> None:
        self.drugs = tuple(drugs)
        self._by_id = {drug.pubchem_id: drug for drug in self.drugs}
        self._by_name: dict[str, Drug] = {}
        for drug in self.drugs:
            for name in drug.synonyms:
                self._by_name.setdefault(_folded(name), drug)
        # The name of one drug takes precedence over a synonym of another.
        self._by_name |= {_folded(drug.name): drug for drug in self.drugs}
        self._by_smiles = {drug.smiles: drug for drug in self.drugs}

    def __len__(self) -> int:
        return len(self.drugs)

    @cached_property
    def _by_canonical(self) -> dict[str, Drug]:
        return {drug.graph.canonical: drug for drug in self.drugs}

    def known(self, text: str) -> bool:
        """Whether this is the name, a synonym or the exact SMILES of a known drug."""
        return _folded(text.strip()) in self._by_name or text.strip() in self._by_smiles

    def find(self, asked: str) -> Drug:
        """The drug with this name, PubChem id (``1983`` or ``CID1983``) or SMILES.

        Raises InputError (``unknown-drug``) for text that is neither a known name nor SMILES, and MoleculeError for a
        SMILES that cannot be used.
        """
        text = asked.strip()
        if not text:
            raise InputError(
                "empty-drug", "The name of a drug is empty.", hint="Give a name, or leave it out.", field="drugs"
            )
        if drug := self._by_name.get(_folded(text)) or self._by_smiles.get(text):
            return drug
        number = text[3:].lstrip(": ") if text[:3].upper() == "CID" else text
        if number.isascii() and number.isdigit():
            if len(number) <= 18 and (drug := self._by_id.get(int(number))):
                return drug
            raise _unknown(text, "PubChem id")
        try:
            graph = parse_smiles(text)
        except MoleculeError as error:
            # A plain word is more likely an unknown name than a bad SMILES.
            if error.code == "bad-smiles" and not _looks_like_smiles(text):
                raise _unknown(text, "name") from error
            raise
        return self._by_canonical.get(graph.canonical) or Drug(text, text)

    def resolve(self, asked: Sequence[str]) -> list[Drug]:
        """Several drugs, in order; all training drugs if ``asked`` is empty.

        Raises InputError like `find`, and for more than ``MAX_DRUGS``.
        """
        if len(asked) > MAX_DRUGS:
            raise InputError(
                "too-many-drugs",
                f"{len(asked):,} drugs are requested, but the limit is {MAX_DRUGS:,}.",
                hint="Split the drugs over several requests.",
                field="drugs",
            )
        return [self.find(text) for text in asked] if asked else [drug for drug in self.drugs if drug.in_training]

    @classmethod
    def load(cls, path: Path | str) -> DrugTable:
        """Read ``drugs.parquet``. Raises BundleError if it is unreadable or lacks a column."""
        try:
            rows = pq.read_table(path, columns=list(_COLUMNS)).to_pylist()
            drugs = [
                Drug(
                    name=str(row["name"]),
                    smiles=str(row["smiles"]),
                    pubchem_id=None if row["pubchem_id"] is None else int(row["pubchem_id"]),
                    targets=str(row["targets"] or ""),
                    pathway=str(row["pathway"] or ""),
                    synonyms=tuple(str(row["synonyms"]).split("|")) if row["synonyms"] else (),
                    known=True,
                    in_training=bool(row["in_training"]),
                )
                for row in rows
            ]
        except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
            raise BundleError(f"{path} is not a table of drugs ({error}). Export the head again.") from error
        return cls(drugs)

    def save(self, path: Path | str) -> None:
        """Write ``drugs.parquet``."""
        columns: dict[str, list[object]] = {name: [] for name in _COLUMNS}
        for drug in self.drugs:
            for name in _COLUMNS:
                value = getattr(drug, name)
                columns[name].append("|".join(value) if name == "synonyms" else value)
        pq.write_table(pa.table(columns), path, compression="zstd")


def _folded(name: str) -> str:
    return "".join(name.casefold().split()).replace("-", "")


def _looks_like_smiles(text: str) -> bool:
    return any(sign in text for sign in "=#()[]@/\\")


def _unknown(text: str, kind: str) -> InputError:
    return InputError(
        "unknown-drug",
        f"Drug '{text[:80]}' is neither a known {kind} nor a SMILES.",
        hint="GET /drugs lists the known drugs; send any other drug as SMILES.",
        field="drugs",
    )
