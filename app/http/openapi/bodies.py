"""The bodies of routes with cells, for the API description. Codecs, not these models, read the bodies."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from scpalm.app.codecs.registry import readable_types
from scpalm.app.http.openapi.components import BINARY, body_schema
from scpalm.app.http.query import query_of
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.common_options import LABELLED_FILE
from scpalm.model.tasks.task import AnyTask


class SparseCells(BaseModel):
    """Raw counts, cells x genes, as a compressed sparse row (CSR) matrix."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "genes": [
                    "CD3D",
                    "CD3E",
                    "IL7R",
                    "NKG7",
                    "GNLY",
                    "MS4A1",
                    "CD79A",
                    "LYZ",
                    "CST3",
                    "FCN1",
                    "PPBP",
                    "B2M",
                ],
                "obs_names": ["T cell", "monocyte"],
                "indptr": [0, 4, 8],
                "indices": [0, 1, 2, 11, 7, 8, 9, 11],
                "data": [3, 2, 4, 31, 40, 18, 5, 22],
            }
        }
    )

    genes: list[str] = Field(description="HGNC symbol or Ensembl ID of each column.")
    obs_names: list[str] | None = Field(None, description="Names of the cells. Default: 0, 1, 2, ...")
    indptr: list[int] = Field(description="CSR row pointers: number of cells + 1 values, starting at 0.")
    indices: list[int] = Field(description="Column index of each value.")
    data: list[float] = Field(description="Values: raw counts.")
    shape: list[int] | None = Field(None, description="[cells, genes], checked where it is sent.")


class UploadForm(BaseModel):
    """A form with one file of cells."""

    # FastAPI would write contentMediaType, which generators of clients turn into text. `format: binary` is a file.
    file: str = Field(
        description="The file: .h5ad, 10x's .h5, .h5mu, JSON or Arrow.", json_schema_extra={"format": "binary"}
    )


def _optional_file(schema: dict[str, Any]) -> None:
    schema |= {"format": "binary"}
    del schema["default"]


class LabelledForm(UploadForm):
    """A form with a file of cells, and optionally a file of labelled cells."""

    reference: str = Field(
        "", description="h5ad with labelled cells, instead of the model's.", json_schema_extra=_optional_file
    )


def cells_body(task: AnyTask) -> dict[str, Any]:
    """The OpenAPI request body of a task's route.

    JSON and the form come first, and bytes without a type last, because generated clients take the first or the last
    type that fits a value.
    """
    types = [media_type for media_type in readable_types() if media_type != "application/json"]
    return {
        "required": True,
        "description": "Cells as JSON (sparse, or rows in `X`), an h5ad file, 10x's .h5, .h5mu, or an Arrow IPC stream "
        "or file (columns `indices`, `data`, `obs_names`; `genes` as JSON in the metadata). The first bytes decide. "
        "`Content-Encoding` may be gzip or zstd. Options may be in the query, the form or the JSON.",
        "content": {
            "application/json": {"schema": body_schema(_json_model(task))},
            "multipart/form-data": {"schema": body_schema(_form_model(task))},
            **dict.fromkeys([*types, "application/octet-stream"], BINARY),
        },
    }


def _json_model(task: AnyTask) -> type[BaseModel]:
    members = {} if task.members is None else dict(task.members.model_fields)
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in members.items()}
    own = query_of(task.name).model_fields
    # Those of the query have the types; here, none is required.
    options: dict[str, Any] = {
        name: (own[option].annotation, own[option])
        for name, option in RequestSpec((task.name,)).option_names("JSON member").items()
        if name not in fields
    }
    return create_model(f"{task.name.capitalize()}Cells", __base__=SparseCells, **fields, **options)


def _form_model(task: AnyTask) -> type[BaseModel]:
    spec = RequestSpec((task.name,))
    own = query_of(task.name).model_fields
    options: dict[str, Any] = {
        name: (str | None, Field(None, description=own[name].description)) for name in spec.option_names("form field")
    }
    base = LabelledForm if LABELLED_FILE in spec.files else UploadForm
    return create_model(f"{task.name.capitalize()}Form", __base__=base, **options)
