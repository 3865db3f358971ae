"""The Python client that openapi-python-client generates works."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.e2e.clients.conftest import NUM_CELLS
from tests.e2e.conftest import Server

Import = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def client(server: Server, python_client: Import):  # type: ignore[no-untyped-def]  # its type is generated
    # The answer to a file is a file, unless JSON is asked for.
    return python_client("client").Client(server.url, headers={"Accept": "application/json"}, timeout=60)


def body_of(python_client: Import, kind: str, path: Path, **options: object):  # type: ignore[no-untyped-def]
    """The cells of a JSON file as a generated class."""
    body = getattr(python_client("models"), kind).from_dict(json.loads(path.read_text()))
    for name, value in options.items():
        setattr(body, name, value)
    return body


def test_cells_as_json(client, python_client: Import, sparse_cells: Path, expected: dict[str, np.ndarray]) -> None:  # type: ignore[no-untyped-def]
    body = body_of(python_client, "EmbedCells", sparse_cells)
    answer = python_client("api.cells.embed").sync(client=client, body=body)
    assert type(answer).__name__ == "EmbedAnswer" and answer.obs_names == ["cell0", "cell1", "cell2"]
    np.testing.assert_array_equal(answer.values, expected["embedding"])
    assert answer.coverage.genes_matched == 4000 and answer.input_.detected == "counts" and len(answer.checksum) == 64


def test_a_file_in_a_form_is_answered_with_json(  # type: ignore[no-untyped-def]
    client, python_client: Import, cells: Path, expected: dict[str, np.ndarray]
) -> None:
    file = python_client("types").File(BytesIO(cells.read_bytes()), "cells.h5ad")
    body = python_client("models").EmbedForm(file=file, also="pathways")
    answer = python_client("api.cells.embed").sync(client=client, body=body)
    assert answer.shape[0] == 150 and np.array(answer.pathways.values).shape[0] == 150
    np.testing.assert_allclose(answer.values[:NUM_CELLS], expected["embedding"], rtol=1e-4, atol=1e-5)


def test_bytes_are_read_by_their_signature(client, python_client: Import, cells: Path) -> None:  # type: ignore[no-untyped-def]
    file = python_client("types").File(BytesIO(cells.read_bytes()))
    answer = python_client("api.cells.annotate").sync(client=client, body=file)
    assert len(answer.label) == len(answer.probability) == 150 and set(answer.label) <= {
        *answer.annotation.labels,
        "unknown",
    }


def test_drug_response(client, python_client: Import, sparse_cells: Path, expected: dict[str, np.ndarray]) -> None:  # type: ignore[no-untyped-def]
    body = body_of(python_client, "Ic50Cells", sparse_cells, drugs=["Cisplatin"])
    answer = python_client("api.cells.ic50").sync(client=client, body=body)
    found = [rows[0][0] for rows in (answer.values, answer.ic50_lower.values, answer.ic50_upper.values)]
    np.testing.assert_array_equal(found, expected["ic50"])
    assert answer.cell_distance.values[0][0] > 0 and len(answer.domain) == NUM_CELLS
    assert answer.drug_response.drugs[0].pubchem_id == 84691 and answer.drug_response.interval.level == 0.9
    known = python_client("api.drug_response.list_drugs").sync(client=client)
    assert any(drug.name == "Cisplatin" for drug in known.drugs)


def test_a_job_from_its_creation_to_its_result(  # type: ignore[no-untyped-def]
    client, python_client: Import, sparse_cells: Path, expected: dict[str, np.ndarray]
) -> None:
    body = body_of(python_client, "EmbedCells", sparse_cells)
    accepted = python_client("api.cells.embed").sync_detailed(client=client, body=body, prefer="respond-async")
    assert accepted.status_code == 202 and accepted.headers["location"] == f"/jobs/{accepted.parsed.id}"
    ends = time.monotonic() + 60
    get = python_client("api.jobs.get_job").sync
    while (state := get(accepted.parsed.id, client=client)).state in ("queued", "running") and time.monotonic() < ends:
        time.sleep(0.02)
    assert state.state == "succeeded" and state.rows_done == NUM_CELLS
    result = python_client("api.jobs.get_job_result").sync(accepted.parsed.id, client=client)
    assert type(result).__name__ == "EmbedAnswer"
    np.testing.assert_array_equal(result.values, expected["embedding"])


def test_errors_have_types(client, python_client: Import, sparse_cells: Path) -> None:  # type: ignore[no-untyped-def]
    body = body_of(python_client, "EmbedCells", sparse_cells)
    body.data[0] = -1.0
    refused = python_client("api.cells.embed").sync_detailed(client=client, body=body)
    assert refused.status_code == 422 and type(refused.parsed).__name__ == "Problem"
    assert refused.parsed.cell == "cell0" and "negative" in refused.parsed.detail
    missing = python_client("api.jobs.get_job").sync("none", client=client)
    assert type(missing).__name__ == "Problem" and missing.status == 404


def test_models_have_cards_and_codes(client, python_client: Import) -> None:  # type: ignore[no-untyped-def]
    (model,) = python_client("api.models.list_models").sync(client=client).models
    card = python_client("api.models.get_model").sync(model.name, client=client)
    assert card.version == model.version and card.training_data and card.evaluation
    codes = python_client("api.models.get_model_pathways").sync(model.name, client=client)
    assert codes.codes[0].code == 0 and codes.fdr == 0.05 and any(code.terms for code in codes.codes)
