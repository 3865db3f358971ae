from __future__ import annotations

import json
from pathlib import Path

from tests.app.fakes import Client


def test_the_list_and_the_card(client: Client, bundle_dir: Path) -> None:
    served = [{"name": "fake", "version": "0.1", "default": True, "device": "cpu"}]
    assert client.get("/models").json() == {"models": served}
    assert client.get("/models/fake").json() == json.loads((bundle_dir / "manifest.json").read_text())


def test_an_unknown_model_is_a_problem_that_lists_the_known_ones(client: Client) -> None:
    answer = client.get("/models/large")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:scpalm:problem:unknown-model"
    assert "fake" in answer.json()["detail"]


def test_the_documentation_has_stable_operations_schemas_and_examples(client: Client) -> None:
    document = client.get("/openapi.json").json()
    operations = {
        f"{method} {path}": operation["operationId"]
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert operations == {
        "post /embed": "embed",
        "post /impute": "impute",
        "post /pathways": "pathways",
        "post /ic50": "ic50",
        "post /annotate": "annotate",
        "post /integrate": "integrate",
        "post /umap": "umap",
        "get /drugs": "list_drugs",
        "get /jobs": "list_jobs",
        "get /jobs/{job_id}": "get_job",
        "get /jobs/{job_id}/events": "get_job_events",
        "get /jobs/{job_id}/result": "get_job_result",
        "delete /jobs/{job_id}": "cancel_job",
        "get /jobs/{job_id}/view": "get_job_view",
        "get /jobs/{job_id}/cells": "get_job_cells",
        "get /jobs/{job_id}/column": "get_job_column",
        "get /jobs/{job_id}/profiles": "get_job_profiles",
        "post /jobs/{job_id}/selection": "describe_selection",
        "post /jobs/{job_id}/more": "compute_more",
        "get /sample": "get_sample",
        "get /models": "list_models",
        "get /models/{name}": "get_model",
        "get /models/{name}/genes": "get_model_genes",
        "get /models/{name}/pathways": "get_model_pathways",
        "get /health/live": "health_live",
        "get /health/ready": "health_ready",
        "get /metrics": "metrics",
        "get /v2": "v2_server",
        "get /v2/health/live": "v2_live",
        "get /v2/health/ready": "v2_ready",
        "get /v2/models/{name}/versions/{version}": "v2_model_version",
        "get /v2/models/{name}": "v2_model",
        "get /v2/models/{name}/versions/{version}/ready": "v2_model_version_ready",
        "get /v2/models/{name}/ready": "v2_model_ready",
        "post /v2/models/{name}/versions/{version}/infer": "v2_infer_version",
        "post /v2/models/{name}/infer": "v2_infer",
    }
    embed = document["paths"]["/embed"]["post"]
    content = embed["requestBody"]["content"]
    assert set(content) == {
        "application/json",
        "multipart/form-data",
        "application/x-hdf5",
        "application/vnd.apache.arrow.stream",
        "application/octet-stream",
    }
    assert content["application/json"]["schema"] == {"$ref": "#/components/schemas/EmbedCells"}
    assert document["components"]["schemas"]["EmbedCells"]["example"]["indptr"]
    assert {"200", "400", "406", "408", "413", "415", "422", "429", "500", "503"} <= set(embed["responses"])
    assert client.get("/docs").status_code == 200


def test_the_vocabulary_and_the_annotation_of_the_codes(client: Client) -> None:
    genes = client.get("/models/fake/genes").json()
    assert genes["symbols"][:2] == ["GENE0", "GENE1"] and len(genes["ensembl_ids"]) == 300
    unnamed = client.get("/models/fake/pathways")
    assert unnamed.status_code == 404 and "pathways.json" in unnamed.json()["detail"]
    for path in ("genes", "pathways"):
        assert client.get(f"/models/other/{path}").json()["type"].endswith("unknown-model")
