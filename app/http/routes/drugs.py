"""GET /drugs: the drugs that requests can name."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from scpalm.app.http.dependencies import ServiceDep
from scpalm.model.drug_response.session import drug_response_of

router = APIRouter(tags=["drug response"])

ModelName = Annotated[
    str | None, Query(description="Name of a model listed by GET /models. Default: the default model.", max_length=200)
]


class KnownDrug(BaseModel):
    """A drug that requests can name."""

    name: str
    pubchem_id: int | None
    smiles: str
    targets: str
    pathway: str
    synonyms: list[str]
    in_training: bool
    structure: Literal["as named", "doubtful", "unknown"] = Field(
        description="Whether `smiles`, which the model learned the drug with, is the structure of the named drug."
    )
    structure_note: str = Field(description="What is wrong with the structure; empty if it is as named.")


class DrugList(BaseModel):
    """The drugs that requests can name."""

    drugs: list[KnownDrug]
    terms: str = Field(description="Terms of use of the data that the drug response head was trained on.")


@router.get(
    "/drugs",
    operation_id="list_drugs",
    response_model=DrugList,
    responses={404: {"description": "The model has no drug response head."}},
)
async def list_drugs(service: ServiceDep, model: ModelName = None) -> Any:
    """List the drugs that requests can name, with their targets. Give any other drug as SMILES or InChI."""
    head = await asyncio.to_thread(drug_response_of, service.model(model).bundle)
    return {
        "drugs": [
            {
                "name": drug.name,
                "pubchem_id": drug.pubchem_id,
                "smiles": drug.smiles,
                "targets": drug.targets,
                "pathway": drug.pathway,
                "synonyms": list(head.drugs.synonyms_of(drug)),
                "in_training": drug.in_training,
                "structure": drug.doubt.standing if drug.doubt else "as named",
                "structure_note": drug.doubt.reason if drug.doubt else "",
            }
            for drug in head.drugs.drugs
        ],
        "terms": head.terms,
    }
