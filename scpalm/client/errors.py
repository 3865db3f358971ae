"""What the service refuses, as exceptions that carry the problem."""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """The service refused a request, or a job failed.

    Attributes:
        status: HTTP status; 0 if the service could not be reached.
        code: short name of the problem, such as ``no-such-layer``.
        detail: what is wrong, and how to fix it.
        problem: all members of the answer: ``field``, ``cell`` and ``gene`` at fault, and so on.
    """

    def __init__(self, status: int, detail: str, problem: dict[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.problem = status, detail, problem or {}
        self.code = str(self.problem.get("type", "")).rpartition(":")[2]


class CellsError(ServiceError):
    """400, 415 or 422: the cells or an option cannot be used."""


class KeyRefusedError(ServiceError):
    """401 or 403: the API key is missing, unknown or not allowed to do this."""


class TooLargeError(ServiceError):
    """413: more cells or bytes than the service takes at once."""


class BusyError(ServiceError):
    """429 or 503, after all retries: the service is full or not ready."""


class JobError(ServiceError):
    """A job failed or was cancelled."""


def error_of(status: int, body: bytes) -> ServiceError:
    """The exception for an answer."""
    import json

    try:
        problem = json.loads(body)
        detail = str(problem.get("detail") or problem.get("title"))
    except (ValueError, AttributeError):
        problem, detail = {}, body[:200].decode("utf-8", "replace") or f"The service answered {status}."
    kinds = {400: CellsError, 415: CellsError, 422: CellsError, 401: KeyRefusedError, 403: KeyRefusedError}
    kinds |= {413: TooLargeError, 429: BusyError, 503: BusyError}
    return kinds.get(status, ServiceError)(status, detail, problem)
