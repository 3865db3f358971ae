"""What the service answers is what its description says, and the description names every member."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.e2e.conftest import Server

JSON = {"Accept": "application/json"}
WITH_CELLS = [
    "/embed",
    "/embed?output=h_C&also=pathways,impute,annotate,umap&genes=GENE",
    "/pathways",
    "/pathways?summary=true",
    "/impute?genes=GENE&scale=counts",
    "/annotate",
    "/annotate?vote=batch",
    "/umap",
    "/integrate?batch_key=batch",
    "/ic50?drugs=Cisplatin&drugs=CC(=O)Oc1ccccc1C(=O)O",
    "/ic50?drugs=Cisplatin&by=batch&contrast=one",
]
PLAIN = [
    "/models",
    "/models/{name}",
    "/models/{name}/genes",
    "/models/{name}/pathways",
    "/drugs",
    "/jobs",
    "/health/live",
    "/health/ready",
    "/v2",
    "/v2/models/{name}",
]


@pytest.fixture(scope="module")
def document(description: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(description.read_text())
    return found


def check(answer: httpx.Response, document: dict[str, Any], route: str, method: str = "get") -> None:
    responses = document["paths"][route][method]["responses"]
    response = responses[str(answer.status_code)]
    media_type = answer.headers["content-type"]
    schema = {**response["content"][media_type]["schema"], "components": document["components"]}
    content = answer.json()
    jsonschema_rs.Draft202012Validator(schema).validate(content)
    assert not list(unnamed(content, schema, document)), route


def unnamed(content: object, schema: dict[str, Any], document: dict[str, Any]) -> Iterator[str]:
    """Members of a value that its schema does not name. Schemas of several kinds are not followed."""
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    if isinstance(content, list) and isinstance(schema.get("items"), dict) and content:
        yield from unnamed(content[0], schema["items"], document)
    if isinstance(content, dict) and "properties" in schema:
        known = schema["properties"]
        for name, value in content.items():
            if name in known:
                yield from unnamed(value, known[name], document)
            elif "additionalProperties" not in schema:
                yield name


@pytest.mark.parametrize("path", WITH_CELLS)
def test_answers_with_cells(server: Server, cells: Path, document: dict[str, Any], path: str) -> None:
    genes = httpx.get(f"{server.url}/models/mini/genes").json()["symbols"]
    url = server.url + path.replace("GENE", genes[0])
    answer = httpx.post(url, files={"file": cells.read_bytes()}, headers=JSON, timeout=60)
    assert answer.status_code == 200, answer.text
    check(answer, document, path.partition("?")[0], "post")


@pytest.mark.parametrize("route", PLAIN)
def test_other_answers(server: Server, document: dict[str, Any], route: str) -> None:
    name = httpx.get(f"{server.url}/models").json()["models"][0]["name"]
    check(httpx.get(server.url + route.format(name=name)), document, route)


def test_answers_about_a_job(server: Server, cells: Path, document: dict[str, Any]) -> None:
    headers = JSON | {"Prefer": "respond-async"}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        accepted = client.post("/pathways?also=umap", files={"file": cells.read_bytes()}, headers=headers)
        check(accepted, document, "/pathways", "post")
        path, route = accepted.headers["location"], "/jobs/{job_id}"
        client.get(f"{path}/events")  # ends with the job
        check(client.get(path), document, route)
        check(client.get(f"{path}/result"), document, f"{route}/result")
        for view in ("view", "cells", "profiles?source=obs&name=batch"):
            check(client.get(f"{path}/{view}"), document, f"{route}/{view.partition('?')[0]}")
        for query in ("source=obs&name=batch", "source=code&name=3", "source=result&name=umap"):
            check(client.get(f"{path}/column?{query}"), document, f"{route}/column")
        for compare in ("genes", "codes"):
            body = {"rows": [0, 1, 2], "compare": compare}
            check(client.post(f"{path}/selection", json=body), document, f"{route}/selection", "post")
        check(client.post(f"{path}/more?task=embed"), document, f"{route}/more", "post")
        check(client.get("/jobs/none"), document, route)


def test_an_inference_answer(server: Server, sparse_cells: Path, document: dict[str, Any]) -> None:
    cells = json.loads(sparse_cells.read_text())
    kinds = {"indptr": "INT64", "indices": "INT32", "data": "FP32", "genes": "BYTES"}
    inputs = [{"name": n, "datatype": kind, "shape": [len(cells[n])], "data": cells[n]} for n, kind in kinds.items()]
    outputs = [{"name": "embedding"}, {"name": "label"}]
    answer = httpx.post(f"{server.url}/v2/models/mini/infer", json={"id": "7", "inputs": inputs, "outputs": outputs})
    assert answer.status_code == 200, answer.text
    check(answer, document, "/v2/models/{name}/infer", "post")
