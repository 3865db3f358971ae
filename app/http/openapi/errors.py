"""The errors of each route, by status. `document.py` gives all of them one content: `Problem`."""

from __future__ import annotations

from typing import Any

from scpalm.app.errors import (
    BadRequestError,
    BodyTimeoutError,
    DeadlineError,
    ForbiddenError,
    IdempotencyError,
    InferenceError,
    InvalidParameterError,
    MissingKeyError,
    NotAcceptableError,
    NotReadyError,
    QueueFullError,
    StorageFullError,
    TooLargeError,
    UnsupportedMediaTypeError,
    UnsupportedTaskError,
)

Responses = dict[int | str, dict[str, Any]]

_RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait before a retry.", "schema": {"type": "integer"}}}

_CELLS = {
    BadRequestError: "The body cannot be read: not HDF5, not JSON, truncated, or a malformed form.",
    NotAcceptableError: "`Accept` names no format that the response can have.",
    BodyTimeoutError: "The body did not arrive in time.",
    TooLargeError: "The request exceeds the limit on bytes (before or after decompression) or on cells.",
    UnsupportedMediaTypeError: "The media type of the body is not supported.",
    InvalidParameterError: "The cells or parameters are invalid: negative values, NaN, empty cells, indices out of "
    "range, or too few genes in the model's vocabulary.",
    UnsupportedTaskError: "There is no such model, or it does not support this task.",
    IdempotencyError: "The `Idempotency-Key` was already used for a different request.",
    InferenceError: "The model failed on these cells.",
    StorageFullError: "There is no room to store the body or its result. See `Retry-After`.",
}
# Of every route that needs a key.
_COMMON = {
    MissingKeyError: "The API key is missing or unknown. Only where the service has keys.",
    ForbiddenError: "The API key does not permit this route. Only where the service has keys.",
    InvalidParameterError: "A query parameter or header is invalid.",
    QueueFullError: "The queue is full, or the API key has reached its rate limit. See `Retry-After`.",
    NotReadyError: "The service is starting or shutting down, cannot reach Redis, or a part of it was ended.",
    DeadlineError: "The response was not ready within `X-Request-Timeout` seconds.",
}


def _responses(errors: dict[Any, str]) -> Responses:
    return {error.status: {"description": text} for error, text in errors.items()}


CELL_ERRORS: Responses = _responses(_CELLS)
COMMON_ERRORS: Responses = _responses(_COMMON)
RETRY_HEADERS: Responses = {status: {"headers": _RETRY_AFTER} for status in (429, 503, 507)}
