"""Options of the ic50 task, and what a body may hold in addition to its cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

from scpalm.model.errors import ParameterError
from scpalm.model.tasks.task import Flag, TaskOptions, Tensor


def _text(value: object) -> object:
    return "" if value is None else value


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
    by: Annotated[str, BeforeValidator(_text)] = Field(
        "",
        description="Column of obs, such as the cell type: the raw counts of each group are summed, and the answer has "
        "one row per group. Summed cells are much nearer to the training data than single cells.",
        max_length=200,
        examples=["cell_type"],
    )
    contrast: Annotated[str, BeforeValidator(_text)] = Field(
        "",
        description="With `by`: the group that the others are compared with, such as normal cells. Adds the difference "
        "of ln IC50 to this group, and its interval.",
        max_length=200,
    )


class GeneTable(BaseModel):
    """One value per cell and gene."""

    genes: list[str]
    values: list[list[float | None]] = Field(description="One row per cell; null where unknown.")


class Ic50Members(BaseModel):
    """Members that a request body may have in addition to its cells."""

    drugs: list[str | int] | None = Field(
        None, description="Drug names, PubChem ids, SMILES, InChIs or InChIKeys; in a form, one per line."
    )
    mutation: GeneTable | None = Field(
        None, description="Gene-level mutation calls: 1 mutated, 0 not mutated, null unknown."
    )
    methylation: GeneTable | None = Field(
        None, description="Promoter methylation as a fraction from 0 to 1; requires `mutation`."
    )


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
