"""Completes the document that FastAPI writes: shared schemas, errors, and how to send a key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from scpalm.app.http.openapi.components import answer_schema, schemas
from scpalm.app.http.openapi.errors import COMMON_ERRORS, RETRY_HEADERS
from scpalm.app.http.problems import MEDIA_TYPE, Problem

DESCRIPTION = """
Cells go in as JSON, h5ad (also 10x's .h5 and .h5mu) or Arrow. `Accept` chooses the format of the answer: JSON, h5ad,
Arrow or npy. Without it, the answer has the format of the body, so send `Accept: application/json` with a file if you
want JSON.

**Errors** are `application/problem+json` (RFC 9457), on every route: `detail` says what to change.

**Jobs**: `Prefer: respond-async` on a request with cells gives 202 and a `Location` to ask later.

**Every request** may have `X-Request-Id` and `X-Request-Timeout`. Every answer has `X-Request-Id`.
"""
_KEY = """
**API key**: this service needs one. Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`; here, press
*Authorize*. The operator makes keys with `scpalm key NAME`.
"""
_SECURITY_SCHEMES = {
    "BearerKey": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "HeaderKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`X-API-Key: KEY`"},
}
_SECURITY: list[dict[str, list[str]]] = [{"BearerKey": []}, {"HeaderKey": []}]
# Health checks need no key, and no middleware refuses them.
_OPEN_TAIL = ("/health/live", "/health/ready")
# Of FastAPI, which validates no body of this API and whose errors have another form.
_UNUSED = ("HTTPValidationError", "ValidationError")
_RESPONSE_NAMES = {
    401: "MissingKey",
    403: "Forbidden",
    422: "InvalidRequest",
    429: "TooManyRequests",
    503: "Unavailable",
    504: "DeadlineExceeded",
}
_PROBLEM = {MEDIA_TYPE: {"schema": answer_schema(Problem)}}


class DescribedApp(FastAPI):
    """FastAPI with a complete description. ``needs_key``: whether requests need an API key."""

    needs_key = False

    def openapi(self) -> dict[str, Any]:
        """The API description, built at the first call."""
        if self.openapi_schema is None:
            # FastAPI keeps what it returns.
            _complete(super().openapi(), needs_key=self.needs_key)
        assert self.openapi_schema is not None
        return self.openapi_schema


def _complete(document: dict[str, Any], *, needs_key: bool) -> None:
    document["info"]["description"] = DESCRIPTION + (_KEY if needs_key else "")
    components = document.setdefault("components", {})
    found = components.get("schemas", {}) | schemas()
    components["schemas"] = {name: found[name] for name in sorted(found) if name not in _UNUSED}
    components["responses"] = {
        _RESPONSE_NAMES[int(status)]: response | RETRY_HEADERS.get(status, {}) | {"content": _PROBLEM}
        for status, response in COMMON_ERRORS.items()
    }
    if needs_key:
        components["securitySchemes"] = _SECURITY_SCHEMES
    for path, methods in document["paths"].items():
        for operation in methods.values():
            is_open = path.endswith(_OPEN_TAIL)
            _describe_errors(operation["responses"], is_open=is_open)
            if needs_key:
                operation["security"] = [] if is_open else _SECURITY
    for schema in _schemas_in(document):
        _shorten(schema)


def _describe_errors(responses: dict[str, Any], *, is_open: bool) -> None:
    """Add the errors of every route, and give all errors the same content."""
    default = responses.get("422", {})
    if "application/json" in default.get("content", {}):  # FastAPI's own
        del responses["422"]
    for status, response in responses.items():
        if int(status) >= 400:
            response |= RETRY_HEADERS.get(int(status), {}) | {"content": _PROBLEM}
    if not is_open:
        for code, name in _RESPONSE_NAMES.items():
            responses.setdefault(str(code), {"$ref": f"#/components/responses/{name}"})


def _schemas_in(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All objects of a document that describe members or parameters."""
    found: list[Any] = [document]
    while found:
        value = found.pop()
        if isinstance(value, dict):
            yield value
            found += value.values()
        elif isinstance(value, list):
            found += value


def _shorten(schema: dict[str, Any]) -> None:
    """Leave out what says nothing: titles made from names, and descriptions that a parameter has twice."""
    members = schema.get("properties")
    if isinstance(members, dict):
        for member in members.values():
            if isinstance(member, dict):
                member.pop("title", None)
                _say_default(member, member)
    if "in" in schema and isinstance(schema.get("schema"), dict):
        schema["schema"].pop("title", None)
        if schema["schema"].get("description") == schema.get("description"):
            schema["schema"].pop("description", None)
        _say_default(schema["schema"], schema)


def _say_default(schema: dict[str, Any], described: dict[str, Any]) -> None:
    """Turn a default into words. Generated clients would send it, and an option of a task not asked for is refused."""
    default = schema.pop("default", None)
    text = described.get("description", "")
    if default not in (None, "", [], {}) and "Default:" not in text:
        described["description"] = f"{text} Default: `{json.dumps(default).strip(chr(34))}`.".strip()
