"""One text that asks for a drug -> the drug, and what was read into the text. Never a guess between two drugs."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_names import (
    bracketed_note,
    has_control_character,
    is_short_chain,
    may_be_ester,
    mixture_parts,
    near_names,
    separated_wrongly,
    simpler_names,
    tidy,
)
from scpalm.model.errors import InputError
from scpalm.model.molecules.error import MoleculeError
from scpalm.model.molecules.identity import has_hydroxyl
from scpalm.model.molecules.inchi import ReadInchi, inchi_in, inchikey_block
from scpalm.model.molecules.standardize import Standardized, standardize

if TYPE_CHECKING:
    from scpalm.model.drug_response.drugs.drug_table import DrugTable

_SMILES_PREFIX = re.compile(r"(?:canonical|isomeric)?\s*smiles\s*[:=]\s*", re.IGNORECASE)
_PUBCHEM_ID = re.compile(r"(?:pubchem)?[\s:_-]*(?:cid)?[\s:=#_-]*(\d+)(?:\.0*)?", re.IGNORECASE)
# What SMILES has and names have not.
_SMILES_SIGNS = re.compile(r"[=#@\\\[\]]|[A-Za-z]\(|\)[A-Za-z]|[a-z]\d[a-z]|[A-Z]\d[A-Z]")
# The stem of names of antibodies (WHO), also of conjugates such as "trastuzumab emtansine".
_ANTIBODY = re.compile(r"[a-z]{4,}(?:mab|tug|bart|mig|ment)\b", re.IGNORECASE)
# After a comma, these begin a further part of an InChI's layers, not another drug.
_INCHI_REST = re.compile(r"[\d(H+?-][\dH(),+\-/?.;*a-z]*")
_MAX_NOTES = 3
_MAX_NAME_PARTS = 16  # between commas, of one name; without a limit, a long list takes hours to divide


@dataclass(frozen=True)
class FoundDrug:
    """A drug, and how the text that asked for it was read.

    Attributes:
        drug: the drug.
        asked: the text.
        changes: what was left out or changed to find it, in words.
    """

    drug: Drug
    asked: str
    changes: tuple[str, ...] = ()


def look_up(table: DrugTable, asked: str, inchis: Mapping[str, ReadInchi]) -> FoundDrug:
    """The drug with this name, PubChem id (``1983`` or ``CID1983``), SMILES, InChI or InChIKey.

    ``smiles:CNO`` is a SMILES in any case. ``inchis``: what was read from the InChIs of the request.

    Raises InputError (``unknown-drug``, ``drug-mixture`` ...) for text that is no drug, and MoleculeError for a
    structure that cannot be used.
    """
    text = tidy(asked)
    if not text:
        raise _error("empty-drug", "The name of a drug is empty.", "Give a name, or leave it out.")
    if has_control_character(text):
        detail = f"Drug {text[:80]!a} has a control character."
        raise _error("bad-drug-text", detail, "Remove it. In a URL, write '%' as %25, or send `drugs` in the body.")
    if match := _SMILES_PREFIX.match(text):
        return _by_smiles(table, text[match.end() :], certain=True)
    if drug := table.named(text):
        return FoundDrug(drug, text)
    for find in (_by_inchi, _by_inchikey, _by_pubchem_id):
        if found := find(table, text, inchis):
            return found
    if found := by_simpler_name(table, text):
        return found
    _refuse_several(table, text)
    if is_short_chain(text):
        near = _did_you_mean(table, text)
        detail = f"Drug '{text}' is no known name; as SMILES it would be a chain of {len(text)} atoms."
        hint = f"{near}If the chain is meant, write smiles:{text}; otherwise send the drug's SMILES."
        raise _error("name-or-smiles", detail, hint)
    return _by_smiles(table, text, certain=False)


def split_list(text: str, is_known: Callable[[str], bool]) -> list[str]:
    """The drugs in one text: a JSON list, or names with commas between them.

    A comma within a known name or an InChI does not divide.
    """
    if (items := _listed(text)) is not None:
        return items
    if is_known(text):
        return [text]
    parts, drugs, place = text.split(","), list[str](), 0
    while place < len(parts):
        end = place + 1
        if inchi_in(parts[place].strip()):
            while end < len(parts) and _INCHI_REST.fullmatch(parts[end].strip()) and not is_known(parts[end]):
                end += 1
        else:
            joined = range(min(len(parts), place + _MAX_NAME_PARTS), place + 1, -1)
            end = next((last for last in joined if is_known(",".join(parts[place:last]))), end)
        drugs.append(",".join(parts[place:end]))
        place = end
    return [drug for drug in drugs if drug.strip()] or [text]


def _listed(text: str) -> list[str] | None:
    """The items of a JSON or Python list, or None. ``[Na+]`` is neither."""
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            items = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        if isinstance(items, list) and items and all(isinstance(item, str | int | float) for item in items):
            return [str(item) for item in items]
    return None


def _by_inchi(table: DrugTable, text: str, inchis: Mapping[str, ReadInchi]) -> FoundDrug | None:
    inchi = inchi_in(text)
    if inchi is None:
        return None
    structure = standardize(inchis[inchi].smiles, text)
    drug, _ = table.same_structure(structure)
    if drug is not None:
        return FoundDrug(drug, text, ("read from InChI", *structure.changes))
    if not inchis[inchi].certain or structure.charged or structure.metal:
        # RDKit would choose a tautomer, and the model's number depends on it.
        raise MoleculeError(
            "inchi-tautomer",
            text,
            "is an InChI, and leaves open which atoms have hydrogens or charges.",
            hint="Send the SMILES in place of the InChI.",
        )
    return _new(text, structure, ("read from InChI", *structure.changes))


def _by_inchikey(table: DrugTable, text: str, inchis: Mapping[str, ReadInchi]) -> FoundDrug | None:
    block = inchikey_block(text)
    if block is None:
        return None
    if drug := table.with_inchikey_block(block):
        return FoundDrug(drug, text, ("found by InChIKey",))
    detail = f"Drug '{text}' is the InChIKey of no known drug."
    raise _error("unknown-inchikey", detail, "Send its SMILES: a structure cannot be read from a key.")


def _by_pubchem_id(table: DrugTable, text: str, inchis: Mapping[str, ReadInchi]) -> FoundDrug | None:
    match = _PUBCHEM_ID.fullmatch(text)
    if match is None or not match[1].isascii():
        return None
    if len(match[1]) <= 18 and (drug := table.with_id(int(match[1]))):
        return FoundDrug(drug, text)
    detail = f"Drug '{text[:80]}' is the PubChem id of no known drug."
    raise _error("unknown-drug", detail, "GET /drugs lists the known drugs; send any other drug as SMILES.")


def by_simpler_name(table: DrugTable, text: str) -> FoundDrug | None:
    """The drug whose name is left without salts, doses, stereo marks and notes, up to three of them."""
    names: list[tuple[str, tuple[str, ...]]] = [(text, ())]
    for _ in range(_MAX_NOTES):
        names = [(left, (*done, change)) for name, done in names for left, change in simpler_names(name)]
        for name, changes in names:
            drug = table.named(name)
            if drug and not (any(map(may_be_ester, changes)) and has_hydroxyl(drug.smiles)):
                return FoundDrug(drug, text, changes)
    note = bracketed_note(text)
    if note and (drug := table.named(note[0])) and table.named(note[1]) is drug:
        return FoundDrug(drug, text, (f"synonym '{note[1]}' in the name ignored",))
    return None


def _refuse_several(table: DrugTable, text: str) -> None:
    parts, has_ratio = mixture_parts(text)
    if parts and (has_ratio or any(table.named(part) for part in parts if len(part) > 2)):
        detail = f"Drug '{text[:80]}' is a mixture of several drugs ({', '.join(parts)[:80]})."
        raise _error("drug-mixture", detail, "The model predicts one drug at a time: ask for each of them.")
    parts = separated_wrongly(text)
    if any(table.named(part) for part in parts):
        detail = f"Drug '{text[:80]}' is a list of several drugs."
        raise _error("drug-list", detail, "Separate them with commas, or repeat `drugs`.")


def _by_smiles(table: DrugTable, text: str, *, certain: bool) -> FoundDrug:
    """``certain``: the user said that it is SMILES."""
    try:
        structure = standardize(text, text)
    except MoleculeError as error:
        if not certain and error.code in ("bad-smiles", "impossible-molecule", "radical"):
            _refuse_word(table, text, error)
        raise
    drug, similar = table.same_structure(structure)
    changes = structure.changes
    if drug is not None:
        if structure.smiles not in table.smiles_of(drug) and not structure.metal:
            changes = (*changes, f"another tautomer of {drug.name}")
        return FoundDrug(drug, text, changes)
    if similar and not certain:
        raise MoleculeError(
            "isomer-of-known-drug",
            text,
            "has the atoms and connections of a known drug, but other double bonds, and is no tautomer that we know.",
            hint="Ask for the known drug by name; if another compound is meant, write smiles: before the SMILES.",
        )
    return _new(text, structure, changes)


def _new(text: str, structure: Standardized, changes: tuple[str, ...]) -> FoundDrug:
    if structure.metal:
        raise MoleculeError(
            "metal-complex",
            text,
            "is a metal complex, and the model has learned too few of them to predict a new one.",
            hint="Leave it out; GET /drugs lists the known drugs.",
        )
    drug = Drug(text, structure.smiles)
    drug.graph.canonical  # noqa: B018 - refuse now what is too large
    return FoundDrug(drug, text, changes)


def _refuse_word(table: DrugTable, text: str, error: MoleculeError) -> None:
    """Refuse a text that is a name rather than a bad SMILES."""
    if " " in text and re.search(r"\[[^\]]* [^\]]*\]|\[[A-Za-z]+ \(", text):
        detail = f"Drug '{text[:80]}' is a SMILES with a space where '+' should be."
        raise _error("bad-smiles", detail, "In a URL, write '+' as %2B, or send `drugs` in the body.") from error
    if " " in text:
        try:
            standardize(text.split()[0], text)
            return  # a SMILES with a name after it, and the error says so
        except MoleculeError:
            pass
    elif _SMILES_SIGNS.search(text):
        return
    _refuse_unknown(table, text, error)


def _refuse_unknown(table: DrugTable, text: str, error: MoleculeError) -> NoReturn:
    if _ANTIBODY.search(text):
        detail = f"Drug '{text[:80]}' is an antibody by its name, and no known drug."
        hint = "Antibodies have no small-molecule structure, so only those in GET /drugs can be predicted."
        raise _error("antibody", detail, hint) from error
    detail = f"Drug '{text[:80]}' is neither a known name nor a SMILES."
    hint = f"{_did_you_mean(table, text)}GET /drugs lists the known drugs; send any other drug as SMILES."
    raise _error("unknown-drug", detail, hint) from error


def _did_you_mean(table: DrugTable, text: str) -> str:
    near = near_names(text, table.written_names.items())
    return f"Did you mean {' or '.join(repr(name) for name in near)}? " if near else ""


def _error(code: str, detail: str, hint: str) -> InputError:
    return InputError(code, detail, hint=hint, field="drugs")
