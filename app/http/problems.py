"""Render every error as ``application/problem+json`` (RFC 9457), without tracebacks."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from scpalm.app.errors import (
    BadRequestError,
    BodyTimeoutError,
    DrainingError,
    InvalidParameterError,
    MethodNotAllowedError,
    MissingKeyError,
    NotFoundError,
    ServiceError,
    TooLargeError,
    UnsupportedTaskError,
)
from scpalm.model.errors import InputError, MissingPartError, OverLimitError, ParameterError, UnreadableError
from scpalm.model.tasks.common_options import LABELLED_FILE

log = logging.getLogger("scpalm.request")

MEDIA_TYPE = "application/problem+json"
_TYPE = "urn:scpalm:problem:"


class Problem(BaseModel):
    """What went wrong and how to fix it (RFC 9457)."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "type": _TYPE + "negative-value",
                "title": "These cells cannot be used",
                "status": 422,
                "detail": "The value of gene 'CD3D' in cell 'AAAC-1' is negative (-1.0). Send raw counts.",
                "field": "data",
                "cell": "AAAC-1",
                "gene": "CD3D",
            }
        }
    )

    type: str = Field(description="Stable identifier of the kind of error.")
    title: str = Field(description="Short description of this kind of error.")
    status: int = Field(description="HTTP status code.")
    detail: str = Field(description="What went wrong in this request, where, and how to fix it.")
    field: str | None = Field(None, description="Field, parameter or header that caused the error.")
    cell: str | None = Field(None, description="Name of the first cell that caused the error.")
    gene: str | None = Field(None, description="Name of the first gene that caused the error.")


# What input is about, by the field at fault. Any other field is a part of the cells.
_SUBJECTS = {
    "drugs": "These drugs",
    "mutation": "This table of mutations",
    "methylation": "This table of methylation",
    "batch_key": "These batches",
    "by": "These groups of cells",
    "vote": "These groups of cells",
    "reference_label": "These labels",
    LABELLED_FILE: "This file of labelled cells",
}
_UNREADABLE_SUBJECTS = {
    "file": "This file",
    LABELLED_FILE: "This file of labelled cells",
    "Content-Encoding": "This compressed body",
}
# Input that is fine, but not what the request says it is.
_TITLES = {
    "input": "It is not clear what the values are",
    "total": "It is not clear what a cell sums to",
    "layer": "There is no such matrix",
}


def problem_of_input(error: InputError) -> Problem:
    """The problem for faulty input: 400 if it cannot be read, 413 if there is too much of it, otherwise 422."""
    field = error.field or ""
    status, title = 422, _TITLES.get(field, f"{_SUBJECTS.get(field, 'These cells')} cannot be used")
    if error.code == "not-h5ad":
        title = "This file has no cells in a supported format"
    elif isinstance(error, UnreadableError):
        status, title = 400, f"{_UNREADABLE_SUBJECTS.get(field, 'This body')} cannot be read"
    elif isinstance(error, OverLimitError):
        status, title = TooLargeError.status, TooLargeError.title
    elif isinstance(error, ParameterError):
        title = InvalidParameterError.title
    return Problem(
        type=_TYPE + error.code,
        title=title,
        status=status,
        detail=str(error),
        field=error.field,
        cell=error.cell,
        gene=error.gene,
    )


def problem_of_service(error: ServiceError) -> Problem:
    """The problem for a ServiceError."""
    return Problem(
        type=_TYPE + error.code, title=error.title, status=error.status, detail=error.detail, field=error.field
    )


def answer(problem: Problem, headers: Mapping[str, str] | None = None) -> Response:
    """The response that carries a problem."""
    body = orjson.dumps(problem.model_dump(exclude_none=True))
    return Response(body, problem.status, headers, media_type=MEDIA_TYPE)


def answer_of_service(error: ServiceError) -> Response:
    """The response for a ServiceError, with the headers that it requires."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if isinstance(error, BodyTimeoutError | DrainingError):
        # The rest of the body must not be parsed as the next request; a service that stops takes no next request.
        headers["Connection"] = "close"
    if isinstance(error, MissingKeyError):
        headers["WWW-Authenticate"] = "Bearer"
    return answer(problem_of_service(error), headers)


def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return answer_of_service(error)


def _on_input_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, InputError)
    return answer(problem_of_input(error))


def _on_missing_part(request: Request, error: Exception) -> Response:
    assert isinstance(error, MissingPartError)
    return answer(problem_of_service(UnsupportedTaskError(str(error))))


def _on_validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return answer(problem_of_service(InvalidParameterError(f"'{field}': {first['msg']}.", field=field)))


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    if error.status_code == 404:
        problem = problem_of_service(NotFoundError(f"There is nothing at {path}. See /docs for the API."))
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "another method")
        problem = problem_of_service(MethodNotAllowedError(f"{path} does not support {request.method}. Use {allowed}."))
    else:
        problem = problem_of_service(BadRequestError(str(error.detail)))
        problem.status = error.status_code
    return answer(problem, error.headers)


def _on_unexpected(request: Request, error: Exception) -> Response:
    log.error("unexpected %s on %s %s", type(error).__name__, request.method, request.url.path)
    detail = "An unexpected error in the service. Please report it with the request id (X-Request-Id) and the time."
    return answer(problem_of_service(ServiceError(detail)))


def install(app: FastAPI) -> None:
    """Register the error handlers on ``app``."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(InputError, _on_input_error)
    app.add_exception_handler(MissingPartError, _on_missing_part)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(Exception, _on_unexpected)
