"""Bodies and answers of the routes that show the cells of a job, for the API description."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from scpalm.app.http.openapi.answers import CellNote, ModelName
from scpalm.app.http.openapi.bodies import SparseCells


class ViewedOutput(BaseModel):
    """An output of the job."""

    name: str
    key: str = Field(description="Its key in an h5ad.")
    width: int = Field(description="Number of columns.")
    columns: list[str] | None
    placement: Literal["obsm", "layers", "obs"]


class ViewNote(CellNote):
    """How the cells were read, and what the tasks add."""

    model_config = ConfigDict(extra="allow")


class ViewDescription(BaseModel):
    """What there is to look at."""

    model: ModelName
    num_cells: int
    outputs: list[ViewedOutput]
    obs: list[str] = Field(description="Columns of `obs` in the file.")
    colors: dict[str, dict[str, str]] = Field(
        description="By column of `obs`, the colour of each category (#rrggbb), from `uns` of the file."
    )
    maps: list[str] = Field(description="Two-dimensional maps in `obsm` of the file.")
    note: ViewNote


class NumberColumn(BaseModel):
    """One number per cell, or one row of numbers for a map."""

    kind: Literal["numbers"]
    values: list[float | None] | list[list[float | None]] = Field(description="null where missing.")


class CategoryColumn(BaseModel):
    """One text per cell."""

    kind: Literal["categories"]
    categories: list[str]
    values: list[int] = Field(description="Positions in `categories`, -1 where missing.")


class GroupProfiles(SparseCells):
    """Summed counts of groups of cells: a body for `POST /ic50`."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "genes": ["CD3D", "LYZ"],
                "obs_names": ["T cell", "monocyte"],
                "indptr": [0, 2, 3],
                "indices": [0, 1, 1],
                "data": [812.0, 4.0, 2301.0],
                "values": "counts",
                "num_cells": [40, 25],
            }
        }
    )

    obs_names: list[str] = Field(description="Names of the groups.")
    values: Literal["counts", "linear"] = Field(description="`linear` if the file has no counts.")
    num_cells: list[int] = Field(description="Number of cells in each group.")


class Rows(BaseModel):
    """Selected cells, and what to compare."""

    rows: list[Annotated[int, Field(ge=0)]] = Field(description="Positions of the cells.", min_length=1)
    compare: Literal["genes", "codes"] = Field("genes", description="`codes` needs a job that has pathway codes.")


class GeneDifference(BaseModel):
    """A gene that the selected cells have more of."""

    gene: str
    inside: float = Field(description="Mean log1p CP10K of the selected cells.")
    outside: float = Field(description="Mean log1p CP10K of all others.")


class CodeDifference(BaseModel):
    """A pathway code that the selected cells have more of."""

    code: int
    inside: float = Field(description="Mean share of tokens of the selected cells.")
    outside: float = Field(description="Mean share of tokens of all others.")


class Differences(BaseModel):
    """Genes or codes, the most different first."""

    genes: list[GeneDifference] | None = Field(None, description="With `compare: genes`.")
    codes: list[CodeDifference] | None = Field(None, description="With `compare: codes`.")
