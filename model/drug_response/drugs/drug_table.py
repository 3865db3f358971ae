"""Table of known drugs in a fixed order, with what finds them: names, ids and structures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_names import folded, may_be_ester, simpler_names, tidy
from scpalm.model.drug_response.drugs.drug_search import FoundDrug, by_simpler_name, look_up
from scpalm.model.drug_response.drugs.structures import DOUBTS
from scpalm.model.drug_response.drugs.synonyms import SYNONYMS
from scpalm.model.errors import BundleError, InputError
from scpalm.model.molecules.error import MoleculeError
from scpalm.model.molecules.identity import same_compound
from scpalm.model.molecules.inchi import inchi_in, inchikeys_of, read_inchis
from scpalm.model.molecules.standardize import Standardized, standardize

MAX_DRUGS = 1000
_COLUMNS = ("pubchem_id", "name", "synonyms", "smiles", "targets", "pathway", "in_training")


@dataclass(frozen=True)
class _Structure:
    smiles: str
    drug: Drug


class DrugTable:
    """Known drugs in a fixed order. Names are compared without case, spaces, hyphens, salts and stereo prefixes."""

    def __init__(self, drugs: Sequence[Drug]) -> None:
        self.drugs = tuple(drugs)
        self._by_id = {drug.pubchem_id: drug for drug in self.drugs}
        # Also where the table has the drug's own structure by now, but still the other compound's id.
        doubts = ((DOUBTS.get(drug.pubchem_id or 0), drug) for drug in self.drugs)
        self._by_id |= {doubt.true_id: drug for doubt, drug in doubts if doubt is not None and doubt.true_id}
        self._by_name: dict[str, Drug] = {}
        self._written: dict[str, str] = {}
        # The name of one drug takes precedence over a synonym of another, and both over a name without its salt.
        for drug in self.drugs:
            self._add_name(drug, drug.name)
        for drug in self.drugs:
            for name in self.synonyms_of(drug):
                self._add_name(drug, name)
        for drug in self.drugs:
            for name, change in simpler_names(drug.name):
                if not may_be_ester(change):
                    self._add_name(drug, name)
        self._by_smiles = {drug.smiles: drug for drug in self.drugs if self._structures_of(drug)}

    def _add_name(self, drug: Drug, name: str) -> None:
        if folded(name) not in self._by_name:
            self._by_name[folded(name)] = drug
            self._written[folded(name)] = name

    def __len__(self) -> int:
        return len(self.drugs)

    @staticmethod
    def synonyms_of(drug: Drug) -> tuple[str, ...]:
        """Other names of a drug: of its row, and those known to this release."""
        return tuple(dict.fromkeys([*drug.synonyms, *SYNONYMS.get(drug.name, ())]))

    @property
    def written_names(self) -> dict[str, str]:
        """Every known name as it is written, by its folded form."""
        return self._written

    def named(self, text: str) -> Drug | None:
        """The drug with this name, synonym or exact SMILES, or None."""
        return self._by_name.get(folded(text)) or self._by_smiles.get(text)

    def with_id(self, pubchem_id: int) -> Drug | None:
        """The drug with this PubChem id, or None."""
        return self._by_id.get(pubchem_id)

    def known(self, text: str) -> bool:
        """Whether this is the name of a known drug, with or without salts and notes, or its exact SMILES."""
        return self.named(tidy(text)) is not None or by_simpler_name(self, tidy(text)) is not None

    def same_structure(self, structure: Standardized) -> tuple[Drug | None, bool]:
        """The drug of a structure, and whether another drug has the same atoms and connections.

        A tautomer, charge state, salt or stereoisomer of a drug is that drug.
        """
        candidates = self._by_key.get(structure.key, ())
        for candidate in candidates:
            if candidate.smiles == structure.smiles:
                return candidate.drug, True
        for candidate in candidates:
            if same_compound(candidate.smiles, structure.smiles):
                return candidate.drug, True
        return None, bool(candidates)

    def smiles_of(self, drug: Drug) -> set[str]:
        """The standardised structures that the table has for a drug."""
        return {one.smiles for group in self._by_key.values() for one in group if one.drug is drug}

    def with_inchikey_block(self, block: str) -> Drug | None:
        """The drug whose InChIKey begins with this block, or None."""
        return self._by_inchikey.get(block)

    @cached_property
    def _by_key(self) -> dict[str, list[_Structure]]:
        """Standardised structures by `identity_key`. Built with the first search, which takes about a second."""
        found: dict[str, list[_Structure]] = {}
        for drug in self.drugs:
            for smiles in self._structures_of(drug):
                try:
                    standard = standardize(smiles, drug.name)
                except MoleculeError:  # a row that is no molecule is found by its name alone
                    continue
                found.setdefault(standard.key, []).append(_Structure(standard.smiles, drug))
        return found

    @cached_property
    def _by_inchikey(self) -> dict[str, Drug]:
        structures = [_Structure(smiles, drug) for drug in self.drugs for smiles in self._structures_of(drug)]
        structures += [one for group in self._by_key.values() for one in group]
        keys = inchikeys_of([one.smiles for one in structures])
        return {key[:14]: one.drug for key, one in zip(keys, structures, strict=True) if key}

    @staticmethod
    def _structures_of(drug: Drug) -> tuple[str, ...]:
        """The drug's own structure, where the table has another one, and that of the table; none of an antibody."""
        if drug.doubt is None:
            return (drug.smiles,)
        return (drug.doubt.true_smiles, drug.smiles) if drug.doubt.true_smiles else ()

    def find(self, asked: str) -> Drug:
        """The drug of one text; see `look_up`."""
        return self.search([asked])[0].drug

    def resolve(self, asked: Sequence[str]) -> list[Drug]:
        """The drugs of several texts; see `search`."""
        return [found.drug for found in self.search(asked)]

    def search(self, asked: Sequence[str]) -> list[FoundDrug]:
        """Several drugs, in order; all training drugs if ``asked`` is empty.

        Raises InputError like `look_up`, and for more than ``MAX_DRUGS``.
        """
        if len(asked) > MAX_DRUGS:
            raise InputError(
                "too-many-drugs",
                f"{len(asked):,} drugs are requested, but the limit is {MAX_DRUGS:,}.",
                hint="Split the drugs over several requests.",
                field="drugs",
            )
        if not asked:
            return [FoundDrug(drug, drug.name) for drug in self.drugs if drug.in_training]
        # One process reads all InChIs of a request.
        inchis = list(dict.fromkeys(inchi for text in asked if (inchi := inchi_in(tidy(text)))))
        read = dict(zip(inchis, read_inchis(inchis), strict=True))
        return [look_up(self, text, read) for text in asked]

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
