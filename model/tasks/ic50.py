"""Drug response: ln IC50 of every cell and drug with an interval, and each cell's distance from the training lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, Field

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.drug import Drug
from scpalm.model.drug_response.drug_search import FoundDrug, split_list
from scpalm.model.drug_response.optional_inputs import UNKNOWN, optional_inputs
from scpalm.model.drug_response.session import UNITS, DrugResponseSession, Setting, drug_response_of
from scpalm.model.errors import ParameterError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, Session, SessionInfo
from scpalm.model.tasks.registry import register
from scpalm.model.tasks.task import (
    BoundTask,
    Flag,
    OutputSpec,
    Recipe,
    RecipeError,
    Task,
    TaskContext,
    TaskOptions,
    Tensor,
    Values,
)

# AnnData key of each output.
_KEYS = {
    "ic50": "X_scpalm_ic50",
    "ic50_lower": "X_scpalm_ic50_lower",
    "ic50_upper": "X_scpalm_ic50_upper",
    "cell_distance": "X_scpalm_ic50_cell_distance",
}


def _texts(value: object) -> object:
    # Do not split at commas here: some drug names contain one.
    texts = [value] if isinstance(value, str) else value
    return tuple(map(str, texts)) if isinstance(texts, list | tuple) else value


class Ic50Options(TaskOptions):
    """Which drugs to predict."""

    drugs: Annotated[tuple[str, ...], BeforeValidator(_texts), Tensor("drugs"), Flag("drug")] = Field(
        (),
        description="Drugs by name or synonym (in any case), PubChem id, SMILES, InChI or InChIKey; repeat the option "
        "or separate names with commas. `smiles:CNO` is a SMILES; without the prefix, a short chain of capitals is "
        "refused as an abbreviation. Default: every drug in the training data.",
        examples=[["Cisplatin", "CC(=O)Oc1ccccc1C(=O)O"]],
    )


class Ic50Members(BaseModel):
    """Members that a request body may have in addition to its cells."""

    drugs: list[str | int] | None = Field(
        None, description="Drug names, PubChem ids, SMILES, InChIs or InChIKeys; in a form, one per line."
    )
    mutation: dict[str, list[Any]] | None = Field(
        None,
        description="`{genes, values: [cells, genes]}`: gene-level mutation calls, 1 mutated, 0 not mutated, "
        "null unknown.",
    )
    methylation: dict[str, list[Any]] | None = Field(
        None,
        description="`{genes, values: [cells, genes]}`: promoter methylation as a fraction from 0 to 1; requires "
        "`mutation`.",
    )


class Ic50(BoundTask):
    """ln IC50 (uM) ``[B, drugs]``, the bounds of its interval, and the distance of each cell ``[B, 1]``.

    Args:
        head: the drug response head.
        drugs: the drugs, one column each.
        optional: mutation and methylation in the head's columns, from `optional_inputs`, starting at cell ``first`` of
            the request.
        first: position in the request of the first row of ``optional``.
        found: how each drug was asked for, for the response. A worker needs none.
    """

    name = "ic50"

    def __init__(
        self,
        head: DrugResponseSession,
        drugs: Sequence[Drug],
        optional: Mapping[str, NDArray[np.float32]],
        first: int = 0,
        found: Sequence[FoundDrug] | None = None,
    ) -> None:
        self._head, self._drugs, self._optional, self._first = head, drugs, optional, first
        self._found = found or [FoundDrug(drug, drug.name) for drug in drugs]
        names = [drug.name for drug in drugs]
        columns = {name: ["cell_distance"] if name == "cell_distance" else names for name in _KEYS}
        self.outputs = tuple(
            OutputSpec(name, key, len(columns[name]), columns=columns[name]) for name, key in _KEYS.items()
        )

    def select_rows(self, prepared: Prepared) -> Rows:
        return self._head.panel.only(prepared.rows)

    def run(self, session: Session, encoded: Encoded, first: int) -> dict[str, Values]:
        rows = slice(first - self._first, first - self._first + len(encoded))
        mutation, methylation = (self._optional.get(name) for name in UNKNOWN)
        found = self._head.predict(
            encoded.h_C,
            encoded.rows,
            self._drugs,
            mutation=None if mutation is None else mutation[rows].astype(np.int64),
            methylation=None if methylation is None else methylation[rows],
        )
        return {
            "ic50": found.ln_ic50.astype(np.float32, copy=False),
            "ic50_lower": found.lower.astype(np.float32, copy=False),
            "ic50_upper": found.upper.astype(np.float32, copy=False),
            "cell_distance": found.cell_distance[:, None].astype(np.float32, copy=False),
        }

    def first_bad_row(self, values: Mapping[str, Values]) -> int | None:
        """A row of NaN is valid: the cell expresses no gene of the panel. Any other row must be finite."""
        finite = np.column_stack([np.isfinite(part) for part in values.values()])
        missing = np.column_stack([np.isnan(part) for part in values.values()])
        bad = ~(finite.all(axis=1) | missing.all(axis=1))
        return int(bad.argmax()) if bad.any() else None

    def metadata(self) -> dict[str, object]:
        head = self._head
        similarity = head.drug_similarities(self._drugs)
        outside = similarity < head.domain.drug_similarity
        optional = self._optional
        setting: Setting = "methylation" if "methylation" in optional else "mutation" if optional else "expression"
        drugs = [
            _described(found, float(score), outside=bool(far))
            for found, score, far in zip(self._found, similarity, outside, strict=True)
        ]
        return {
            "drug_response": {
                "units": UNITS,
                "interval": {"level": head.level_of(setting), "lower": "ic50_lower", "upper": "ic50_upper"},
                "inputs": setting,
                "drugs": drugs,
                "cell_distance_of_training": head.domain.cell_distance,
                "training_tissues": list(head.tissues),
                "no_answer": f"null (NaN): the cell expresses none of the {len(head.panel)} genes the model uses.",
                "terms": head.terms,
            }
        }

    def recipe(self, first: int, num_rows: int) -> Recipe:
        # A known drug is sent as its position in the bundle's table, which the worker has too.
        position = {id(drug): number for number, drug in enumerate(self._head.drugs.drugs)}
        drugs = [position.get(id(drug), drug.smiles) for drug in self._drugs]
        start = first - self._first
        optional = {name: values[start : start + num_rows] for name, values in self._optional.items()}
        return Recipe(first, {"drugs": drugs}, optional)


@register
class Ic50Task(Task[Ic50Options]):
    """Drug response."""

    name = "ic50"
    summary = (
        "Predicted response of every cell (or bulk profile) to every drug. For research use, not for treatment. "
        "Mutation and methylation are optional: members of a JSON body, or dataframes `mutation` and `methylation` "
        "in `obsm` of an h5ad file."
    )
    result = (
        "`values`: ln IC50 (uM), one row per cell and one column per drug; `ic50_lower`, `ic50_upper`: the interval; "
        "`cell_distance`: distance of the cell from the training cell lines; `drug_response`: units, drugs, domain and "
        "terms of use."
    )
    options = Ic50Options
    members = Ic50Members
    tensors: ClassVar[Mapping[str, str]] = {name: name for name in _KEYS}
    alone = True
    binds_quickly = False

    def bind(self, options: Ic50Options, context: TaskContext) -> BoundTask:
        head = drug_response_of(context.bundle)
        found = find_drugs(head, [*options.drugs, *drug_names(context.members)])
        optional = optional_inputs(head, context.members, context.num_cells)
        return Ic50(head, [one.drug for one in found], optional, found=found)

    def rebuild(self, bundle: Bundle, info: SessionInfo, recipe: Recipe) -> BoundTask:
        head = drug_response_of(bundle)
        known = head.drugs.drugs
        drugs: list[Drug] = []
        for drug in recipe.settings["drugs"]:
            if isinstance(drug, int) and not 0 <= drug < len(known):
                raise RecipeError("The position of a drug is outside the model's drug table.")
            drugs.append(known[drug] if isinstance(drug, int) else _new_drug(str(drug)))
        return Ic50(head, drugs, {name: recipe.arrays[name] for name in UNKNOWN if name in recipe.arrays}, recipe.first)


@lru_cache(4096)
def _new_drug(smiles: str) -> Drug:
    """A drug that is not in the table. Cached, so that its graph is built once and not for every batch."""
    return Drug(smiles, smiles)


def find_drugs(head: DrugResponseSession, asked: Sequence[str]) -> list[FoundDrug]:
    """The requested drugs, or all training drugs if none is named. Raises InputError for an unknown drug."""
    return head.drugs.search([drug for text in asked for drug in split_list(text, head.drugs.known)])


def _described(found: FoundDrug, similarity: float, *, outside: bool) -> dict[str, object]:
    """What the response says of a drug; what was changed or is doubtful only where there is something to say."""
    drug = found.drug
    described: dict[str, object] = {
        "name": drug.name,
        "pubchem_id": drug.pubchem_id,
        "smiles": drug.smiles,
        "in_training": drug.in_training,
        "similarity_to_training": round(similarity, 3),
        "outside_training_domain": outside,
    }
    if found.asked != drug.name:
        described["asked"] = found.asked
    if found.changes:
        described["standardised"] = list(found.changes)
    if drug.doubt is not None:
        described["structure"], described["structure_note"] = drug.doubt.standing, drug.doubt.reason
    return described


def drug_names(members: Mapping[str, object]) -> tuple[str, ...]:
    """``drugs`` of a body: a list, or text with one drug per line. Raises ParameterError."""
    given = members.get("drugs", ())
    if isinstance(given, str):
        return tuple(line for line in given.splitlines() if line.strip())
    # A column of PubChem ids with one gap becomes floats; true and false are numbers only to Python.
    if not isinstance(given, list | tuple) or not all(
        isinstance(drug, str | int | float) and not isinstance(drug, bool) for drug in given
    ):
        raise ParameterError("'drugs' must be a list of names, PubChem ids or SMILES.", field="drugs")
    return tuple(map(str, given))
