"""The JSON answer of the ic50 task, for the API description."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from scpalm.model.tasks.answer import Matrix, TaskAnswer


class DrugMatrix(BaseModel):
    """One value per cell (or group) and drug; null where the cell expresses none of the genes that are needed."""

    columns: list[str] = Field(description="Names of the drugs.")
    shape: list[int] = Field(description="[cells, drugs].")
    values: list[list[float | None]] = Field(description="One row per cell.")


class CellMatrix(Matrix):
    """One value per cell; null where the cell expresses none of the genes that are needed."""

    values: list[list[float | None]] = Field(description="One row of one value per cell.")  # type: ignore[assignment]


class Interval(BaseModel):
    """The interval of a prediction."""

    level: float = Field(description="Share of measured values that lie within the interval.")
    lower: str = Field(description="Member with the lower bounds.")
    upper: str = Field(description="Member with the upper bounds.")


class AskedDrug(BaseModel):
    """A drug of the answer, and how it was found."""

    name: str
    pubchem_id: int | None
    smiles: str
    in_training: bool
    similarity_to_training: float = Field(description="Similarity of its structure to the nearest training drug.")
    outside_training_domain: bool = Field(description="Whether it is unlike every training drug.")
    mean_of_training_lines: float | None = Field(None, description="Mean ln IC50 (uM) over the training lines.")
    asked: str | None = Field(None, description="What the request said, if it is not the name.")
    standardised: list[str] | None = Field(None, description="What was changed in the structure, if anything.")
    structure: Literal["doubtful", "unknown"] | None = Field(
        None, description="Present if the structure in the training table is not that of the named drug."
    )
    structure_note: str | None = Field(None, description="What is wrong with that structure.")


class ComparedGroup(BaseModel):
    """The group that the others are compared with."""

    model_config = ConfigDict(populate_by_name=True)

    group: str = Field(alias="with", description="Name of the group.")
    level: float = Field(description="Level of the interval of the difference.")


class DrugResponseNote(BaseModel):
    """How to read the predictions."""

    units: str = Field(examples=["ln IC50 (uM)"])
    interval: Interval
    cell_distance_of_training: float = Field(description="Cells with a larger `cell_distance` are far from training.")
    training_tissues: list[str]
    no_answer: str = Field(description="What null means.")
    terms: str = Field(description="Terms of use of the training data.")
    relative: str | None = Field(None, description="What the values relative to the training lines mean.")
    domain: str | None = Field(None, description="What `cell_distance` means.")
    inputs: str = Field(description="The setting of the head, by the inputs that it used.")
    inputs_used: list[str]
    inputs_not_used: dict[str, str] | None = Field(None, description="Inputs of the request that were not used: why.")
    drugs: list[AskedDrug]
    by: str | None = Field(None, description="Column of obs whose groups are the rows.")
    contrast: ComparedGroup | None = None


def _column(*values: float) -> dict[str, Any]:
    return {"columns": ["Cisplatin"], "shape": [len(values), 1], "values": [[value] for value in values]}


class Ic50Answer(TaskAnswer):
    """Drug response: `values` is ln IC50 (uM)."""

    example: ClassVar[Mapping[str, Any]] = {
        **_column(3.16, 2.41),
        "ic50_lower": _column(1.28, 0.53),
        "ic50_upper": _column(5.03, 4.28),
        "ic50_relative": _column(0.18, -0.57),
        "ic50_percentile": _column(68.6, 22.1),
        "ic50_rank": _column(1, 1),
        "cell_distance": _column(0.66, 0.58) | {"columns": ["cell_distance"]},
        "domain": ["inside: as near to a training line as these are to each other"] * 2,
        "nearest_line": ["ACH-000563 LUSC", "ACH-000346 CLL"],
        "drug_response": {
            "units": "ln IC50 (uM)",
            "interval": {"level": 0.9, "lower": "ic50_lower", "upper": "ic50_upper"},
            "cell_distance_of_training": 0.73,
            "training_tissues": ["CLL", "LUSC"],
            "no_answer": "null (NaN): the cell expresses none of the genes the model uses.",
            "terms": "For research use.",
            "inputs": "expression",
            "inputs_used": ["expression"],
            "drugs": [
                {
                    "name": "Cisplatin",
                    "pubchem_id": 84691,
                    "smiles": "N.N.[Cl-].[Cl-].[Pt+2]",
                    "in_training": True,
                    "similarity_to_training": 1.0,
                    "outside_training_domain": False,
                    "mean_of_training_lines": 2.98,
                }
            ],
        },
    }

    columns: list[str] = Field(description="Names of the drugs.")
    values: list[list[float | None]] = Field(  # type: ignore[assignment]
        description="ln IC50 (uM), one row per cell or group; null where the cell expresses none of the genes needed."
    )
    ic50_lower: DrugMatrix = Field(description="Lower bounds of the interval.")
    ic50_upper: DrugMatrix = Field(description="Upper bounds of the interval.")
    ic50_relative: DrugMatrix | None = Field(None, description="Difference to the drug's mean over training lines.")
    ic50_percentile: DrugMatrix | None = Field(
        None, description="Percentage of training lines predicted at least as sensitive."
    )
    ic50_rank: DrugMatrix | None = Field(None, description="Rank of the drug by `ic50_relative`, 1 is most sensitive.")
    ic50_contrast: DrugMatrix | None = Field(None, description="With `contrast`: difference to that group.")
    ic50_contrast_lower: DrugMatrix | None = None
    ic50_contrast_upper: DrugMatrix | None = None
    cell_distance: CellMatrix = Field(description="Distance of each cell from the nearest training line.")
    domain: list[str] = Field(description="Whether each cell is near the training lines, in words; empty for none.")
    nearest_line: list[str] | None = Field(None, description="Nearest training line of each cell.")
    drug_response: DrugResponseNote
