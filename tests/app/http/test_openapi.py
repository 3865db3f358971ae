"""Send requests generated from the OpenAPI description. Every response must be described there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
import torch
from fastapi import FastAPI

from scpalm.app.auth.keys import new_key
from tests.app.fakes import Client

EXAMPLES = 15
SEED = 0


@pytest.fixture(scope="module")
def running(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    from tests.app.conftest import _make_app
    from tests.app.fakes import FakeSession

    app = _make_app(FakeSession(), bundle=bundle_dir, spool_dir=tmp_path_factory.mktemp("spool"))
    with Client(app) as client:
        yield client.wait_until_loaded()


@pytest.fixture
def subnormal_floats() -> None:
    """Hypothesis refuses to draw floats after a library built with -ffast-math made this thread flush subnormals."""
    torch.set_flush_denormal(False)


@pytest.mark.usefixtures("subnormal_floats")
def test_the_openapi_description_is_valid_and_followed(running: Client) -> None:
    from hypothesis import HealthCheck, Phase, given, seed, settings

    schema = schemathesis.openapi.from_dict(running.get("/openapi.json").json())
    operations = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    assert len(operations) >= 12
    failures: list[str] = []

    def send(operation: Any, case: Any) -> None:
        made = case.as_transport_kwargs(base_url="http://localhost")
        arguments = {
            name: made[name] for name in ("method", "url", "params", "headers", "json", "data") if name in made
        }
        if isinstance(arguments.get("data"), (bytes, str)):
            arguments["content"] = arguments.pop("data")
        answer = running.run(running.http.request(**arguments))
        described = set(operation.definition.raw["responses"])
        where = f"{operation.label}: {answer.status_code} {answer.text[:200]}"
        # Generated values of X-Request-Timeout are mostly too short for an answer.
        late = answer.status_code == 504 and "x-request-timeout" in answer.request.headers
        assert answer.status_code < 500 or answer.status_code == 503 or late, where
        # Responses sent before a route is found are not described.
        assert str(answer.status_code) in described | {"404", "405"}, where
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json", where

    for operation in operations:
        check = partial(send, operation)
        bounded = settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )

        def once(case: Any) -> None:
            check(case)  # noqa: B023 - called before the loop goes on

        try:
            seed(SEED)(bounded(given(case=operation.as_strategy())(once)))()
        except AssertionError as error:
            failures.append(str(error).splitlines()[0])
    assert not failures, "\n".join(failures)


PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def _inside(value: object) -> Iterator[Any]:
    """A value and everything in it."""
    yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _inside(part)


def test_every_error_of_the_guard_is_described(make_app: Callable[..., FastAPI]) -> None:
    document = make_app().openapi()
    for path in ("/embed", "/impute", "/pathways"):
        assert {"401", "403", "409", "504"} <= set(document["paths"][path]["post"]["responses"])


def test_every_error_is_the_same_component(make_app: Callable[..., FastAPI]) -> None:
    document = make_app().openapi()
    for name, operation in _operations(document):
        for status, response in operation["responses"].items():
            if "$ref" in response:
                response = document["components"]["responses"][response["$ref"].rsplit("/", 1)[1]]
            if int(status) >= 400:
                assert response["content"] == PROBLEM, f"{name} {status}"
    assert json.dumps(document).count("Stable identifier of the kind of error") == 1
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


def test_every_reference_leads_to_a_component(make_app: Callable[..., FastAPI]) -> None:
    document = make_app().openapi()
    for part in _inside(document):
        if isinstance(part, dict) and isinstance(reference := part.get("$ref"), str):
            _, components, kind, name = reference.split("/")
            assert components == "components" and name in document["components"][kind], reference


def test_every_answer_and_body_has_a_type(make_app: Callable[..., FastAPI]) -> None:
    document = make_app().openapi()
    for name, operation in _operations(document):
        contents = [response.get("content", {}) for response in operation["responses"].values()]
        contents += [operation["requestBody"]["content"]] if "requestBody" in operation else []
        for media_type, content in (pair for found in contents for pair in found.items()):
            assert content["schema"].keys() & {"$ref", "anyOf", "type"}, f"{name} {media_type}"
        assert any(status < "300" and "content" in answer for status, answer in operation["responses"].items()), name
    for name, schema in document["components"]["schemas"].items():
        for member, described in schema.get("properties", {}).items():
            assert described.keys() & {"$ref", "anyOf", "type", "const", "enum"}, f"{name}.{member}"
        for part in _inside(schema):
            if isinstance(part, dict) and part.get("type") == "array":
                assert part.get("items"), f"{name} has a list of anything"


def test_examples_are_valid(make_app: Callable[..., FastAPI]) -> None:
    document = make_app().openapi()
    examples = [
        (part["example"], part["schema"]) for part in _inside(document["paths"]) if isinstance(part, dict)
        and "example" in part
    ]  # fmt: skip
    examples += [(schema["example"], schema) for schema in document["components"]["schemas"].values()
                 if "example" in schema]  # fmt: skip
    assert len(examples) > 15
    for example, schema in examples:
        jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}).validate(example)


def test_files_are_binary_strings(make_app: Callable[..., FastAPI]) -> None:
    """Generators turn FastAPI's own form, contentMediaType, into text."""
    document = make_app().openapi()
    assert "contentMediaType" not in json.dumps(document)
    for name in ("EmbedForm", "AnnotateForm"):
        file = document["components"]["schemas"][name]["properties"]["file"]
        assert (file["type"], file["format"]) == ("string", "binary")
    reference = document["components"]["schemas"]["AnnotateForm"]["properties"]["reference"]
    assert (reference["type"], reference["format"]) == ("string", "binary") and "default" not in reference


def test_keys_are_described_where_they_are_needed(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    assert "securitySchemes" not in make_app().openapi()["components"]
    _, entry = new_key("lab")
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [entry]}))
    document = make_app(api_keys_file=keys).openapi()
    schemes = document["components"]["securitySchemes"]
    assert schemes["BearerKey"]["scheme"] == "bearer" and schemes["HeaderKey"]["name"] == "X-API-Key"
    assert "X-API-Key: KEY" in document["info"]["description"]
    for name, operation in _operations(document):
        needed: list[dict[str, list[str]]] = [] if "/health/" in name else [{"BearerKey": []}, {"HeaderKey": []}]
        assert operation["security"] == needed, name


def test_headers_that_are_read_are_described(make_app: Callable[..., FastAPI]) -> None:
    document = make_app().openapi()
    headers = {p["name"] for p in document["paths"]["/embed"]["post"]["parameters"] if p["in"] == "header"}
    assert headers == {"Prefer", "Idempotency-Key", "Content-Encoding", "X-Request-Timeout", "X-Request-Id"}
    accepted = document["paths"]["/embed"]["post"]["responses"]["202"]
    assert set(accepted["headers"]) == {"Location", "Preference-Applied"}
