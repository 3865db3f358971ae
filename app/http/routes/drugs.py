"""POST /ic50: cells or bulk profiles and drugs in, ln IC50 of every pair out. GET /drugs: the drugs known by name."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from scpalm.app.http.dependencies import OwnerDep, ServiceDep
from scpalm.app.http.problems import Problem
from scpalm.app.http.routes.cells import Input, Layer, ModelName, answer, responses
from scpalm.app.http.schemas import CELLS_BODY, SparseCells, UploadForm
from scpalm.app.tasks.ic50 import drug_response_of
from scpalm.app.tasks.plans import Asked

router = APIRouter(tags=["drug response"])

Drugs = Annotated[
    list[str] | None,
    Query(
        description="Drugs by name (also synonyms, any case), PubChem id or SMILES; repeat it, or separate names by "
        "commas. Default: every drug the head was trained on. `drugs` of a JSON body or a form are added.",
        examples=[["Cisplatin", "CC(=O)Oc1ccccc1C(=O)O"]],
    ),
]


class CellsAndDrugs(SparseCells):
    """Cells, drugs, and what else is known of the cells."""

    drugs: list[str | int] | None = Field(None, description="Names, PubChem ids or SMILES.")
    mutation: dict[str, list[Any]] | None = Field(
        None, description="`{genes, values: [cells, genes]}`, gene-level calls: 1 mutated, 0 not, null unknown."
    )
    methylation: dict[str, list[Any]] | None = Field(
        None, description="The same with promoter methylation, a share from 0 to 1; read together with mutation."
    )


class FileAndDrugs(UploadForm):
    """A form with one file, and drugs."""

    drugs: str | None = Field(None, description="Names, PubChem ids or SMILES; one a line, or the field repeated.")


class KnownDrug(BaseModel):
    """One drug that can be asked for by name."""

    name: str
    pubchem_id: int | None
    smiles: str
    targets: str
    pathway: str
    synonyms: list[str]
    in_training: bool


class DrugList(BaseModel):
    """The drugs known by name."""

    drugs: list[KnownDrug]
    terms: str = Field(description="Of the data that the head was trained on.")


_BODY: dict[str, Any] = {
    **CELLS_BODY,
    "content": {
        **CELLS_BODY["content"],
        "application/json": {"schema": CellsAndDrugs.model_json_schema()},
        "multipart/form-data": {"schema": FileAndDrugs.model_json_schema()},
    },
}


@router.post(
    "/ic50",
    operation_id="ic50",
    response_class=Response,
    openapi_extra={"requestBody": _BODY},
    responses=responses(
        "`values`: ln IC50 (uM), one row a cell and one column a drug; `ic50_lower` and `ic50_upper`: the interval; "
        "`cell_distance`: how far the cell is from the training lines; `drug_response`: units, drugs, domain, terms."
    ),
)
async def ic50(
    request: Request,
    service: ServiceDep,
    owner: OwnerDep,
    model: ModelName = None,
    layer: Layer = None,
    declared: Input = "auto",
    drugs: Drugs = None,
) -> Response:
    """Predicted drug response of every cell (or bulk profile) to every drug. For research: no use for treatment.

    Mutation and methylation, where they are known: members of a JSON body, or dataframes `mutation` and `methylation`
    in `obsm` of an h5ad file.
    """
    return await answer(request, service, owner, Asked(("ic50",), drugs=tuple(drugs or ())), model, layer, declared)


@router.get(
    "/drugs",
    operation_id="list_drugs",
    response_model=DrugList,
    responses={404: {"model": Problem, "description": "The model has no drug response head."}},
)
async def list_drugs(service: ServiceDep, model: ModelName = None) -> Any:
    """The drugs known by name, with their targets. Any other drug can be given as SMILES."""
    head = await asyncio.to_thread(drug_response_of, service.model(model).bundle)
    return {
        "drugs": [
            {
                "name": drug.name,
                "pubchem_id": drug.pubchem_id,
                "smiles": drug.smiles,
                "targets": drug.targets,
                "pathway": drug.pathway,
                "synonyms": list(drug.synonyms),
                "in_training": drug.in_training,
            }
            for drug in head.drugs.drugs
        ],
        "terms": head.terms,
    }
