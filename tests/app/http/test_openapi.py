"""Send requests generated from the OpenAPI description. Every response must be described there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import torch
from fastapi import FastAPI

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
        assert answer.status_code < 500 or answer.status_code == 503, where
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


def test_every_error_of_the_guard_is_described(make_app: Callable[..., FastAPI]) -> None:
    document = make_app().openapi()
    for path in ("/embed", "/impute", "/pathways"):
        assert {"401", "403", "409", "504"} <= set(document["paths"][path]["post"]["responses"])
