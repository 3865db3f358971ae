"""Headers that routes read and write, for the API description. The code that reads them checks them."""

from __future__ import annotations

from typing import Any


def _parameter(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


# `Accept`, `Content-Type` and `Authorization` are described elsewhere: OpenAPI ignores parameters of these names.
REQUEST_HEADERS: list[dict[str, Any]] = [
    _parameter(
        "X-Request-Timeout",
        "Seconds after which the response is 504 instead.",
        type="number",
        exclusiveMinimum=0,
        maximum=86_400,
        examples=[30],
    ),
    _parameter(
        "X-Request-Id",
        "Id of this request in answers, logs and traces: up to 100 letters, digits and `_.:-`. Default: a random one.",
        type="string",
        maxLength=100,
        examples=["run-17"],
    ),
]
CELL_HEADERS: list[dict[str, Any]] = [
    _parameter(
        "Prefer",
        "`respond-async` makes a job: the response is 202 with a `Location`, and the result is fetched from there.",
        type="string",
        examples=["respond-async"],
    ),
    _parameter(
        "Idempotency-Key",
        "With `Prefer: respond-async`: the same key and body give the same job.",
        type="string",
        minLength=1,
        maxLength=200,
        examples=["b1946ac9"],
    ),
    _parameter(
        "Content-Encoding",
        "Compression of the body, not of a form. Found by its first bytes if it is missing.",
        type="string",
        enum=["gzip", "zstd"],
    ),
    *REQUEST_HEADERS,
]

SERVER_TIMING = {
    "Server-Timing": {
        "description": "Milliseconds for parse, queue, inference and encode; parse and inference overlap.",
        "schema": {"type": "string"},
    }
}
CELL_ANSWER_HEADERS = {
    "Scpalm-Note": {
        "description": "How the cells were read, as JSON: `coverage`, `input` and `warnings`; for answers that are not "
        "JSON.",
        "schema": {"type": "string"},
    },
    **SERVER_TIMING,
}
JOB_ANSWER_HEADERS = {
    "Location": {"description": "`/jobs/{id}`.", "schema": {"type": "string"}},
    "Preference-Applied": {"description": "`respond-async`.", "schema": {"type": "string"}},
}
