"""Options of every request with cells, for any task. This list is the only place that names them.

Each field is a query parameter, a form field and a JSON member, and an attribute of `RequestSpec`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from scpalm.model.genes.values.declared import Declared


class CommonOptions(BaseModel):
    """Options of every request with cells."""

    model_config = ConfigDict(frozen=True)

    model: str | None = Field(
        None,
        description="Name of a model listed by GET /models. Default: the model marked as default there.",
        max_length=200,
        examples=["mini"],
    )
    layer: str | None = Field(
        None,
        description="Matrix of an h5ad file to use: `X`, `raw` for raw.X, or the name of a layer. Default: the one "
        "that holds the counts.",
        max_length=200,
    )
    input: Declared = Field(
        "auto",
        description="What the values are: `counts` (fractions allowed), `linear` (normalised, no logarithm), or "
        "logarithms of `x + 1`: `log` (natural), `log2`, `log10`; also by name, such as `log2_tpm`. Default: detected, "
        "or refused if that is not certain.",
    )
    total: float | None = Field(
        None,
        description="What a whole cell sums to before the logarithm, such as 1e4 (CP10K) or 1e6 (CPM, TPM). Needed for "
        "normalised values of a selection of genes.",
        gt=0,
        le=1e12,
    )


COMMON = tuple(CommonOptions.model_fields)
ALSO = "also"
# Field of a form with a file of labelled cells.
LABELLED_FILE = "reference"
# Names of bodies with cells. An option of this name could not be distinguished from them.
CELL_MEMBERS = ("genes", "obs_names", "indptr", "indices", "data", "shape", "X")
# `genes` names both the columns of a JSON body and what to impute; in JSON the option has its tensor's name.
RESERVED = frozenset({*COMMON, ALSO, *CELL_MEMBERS, "file", LABELLED_FILE} - {"genes"})
