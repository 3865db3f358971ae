"""Errors that reach a client. Each class has its HTTP status, code and title; `http/problems.py` renders them."""

from __future__ import annotations

from typing import ClassVar

from scpalm.model.errors import UserError


class ServiceError(UserError):
    """An error to report to the client. Faults in the cells themselves are `scpalm.model.errors.InputError`.

    Attributes:
        status: HTTP status, set by the class.
        code: last part of the problem's ``type``, set by the class.
        title: short description of this kind of error, set by the class.
        detail: what went wrong in this request and how to fix it.
        field: the field, parameter or header at fault, if there is one.
        retry_after: seconds to wait before a retry, if a retry can help.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "The service failed"

    def __init__(self, detail: str, *, field: str | None = None, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.retry_after = retry_after


def service_error(code: str, detail: str, field: str | None, retry_after: int | None) -> ServiceError:
    """Rebuild an error that another process sent. An unknown code becomes an InferenceError."""
    kinds = {kind.code: kind for kind in ServiceError.__subclasses__()}
    return kinds.get(code, InferenceError)(detail, field=field, retry_after=retry_after)


class BadRequestError(ServiceError):
    """The request is malformed before any cell is read, such as a form without a boundary or without a file."""

    status, code, title = 400, "bad-request", "The request cannot be read"


class UnknownHostError(ServiceError):
    """The ``Host`` header names a host that this service does not answer to."""

    status, code, title = 400, "unknown-host", "This service does not answer to this host name"


class MissingKeyError(ServiceError):
    """The API key is missing or unknown."""

    status, code, title = 401, "key-missing", "An API key is required"


class ForbiddenError(ServiceError):
    """The API key does not permit this operation."""

    status, code, title = 403, "key-not-allowed", "This API key does not permit the operation"


class RateLimitError(ServiceError):
    """The API key has used up its budget; ``retry_after`` says when it may send again."""

    status, code, title = 429, "rate-limit", "This API key has reached its rate limit"


class DeadlineError(ServiceError):
    """The deadline set by the client has passed."""

    status, code, title = 504, "deadline", "The deadline of the request has passed"


class NotFoundError(ServiceError):
    """The path does not exist."""

    status, code, title = 404, "not-found", "There is nothing at this path"


class UnknownModelError(ServiceError):
    """This service does not serve the requested model."""

    status, code, title = 404, "unknown-model", "There is no such model"


class UnknownColumnError(ServiceError):
    """The cells of a job have no such column, gene or code."""

    status, code, title = 404, "unknown-column", "The cells have no such column"


class UnsupportedTaskError(ServiceError):
    """The model, or the installation, lacks a part that the request needs."""

    status, code, title = 404, "unsupported-task", "A part that this needs is missing"


class MethodNotAllowedError(ServiceError):
    """The path does not support this HTTP method."""

    status, code, title = 405, "method-not-allowed", "This path does not support this method"


class NotAcceptableError(ServiceError):
    """``Accept`` names no format that the response can have."""

    status, code, title = 406, "not-acceptable", "The response is not available in this format"


class BodyTimeoutError(ServiceError):
    """No bytes of the body arrived for too long."""

    status, code, title = 408, "body-timeout", "The body did not arrive in time"


class TooLargeError(ServiceError):
    """The request exceeds a limit on bytes (before or after decompression) or on cells."""

    status, code, title = 413, "too-large", "The request exceeds a limit of this service"


class UnsupportedMediaTypeError(ServiceError):
    """No codec reads this media type or content encoding."""

    status, code, title = 415, "unsupported-media-type", "This type of body is not supported"


class InvalidParameterError(ServiceError):
    """A query parameter, header or field has an invalid value."""

    status, code, title = 422, "invalid-parameter", "A parameter is invalid"


class QueueFullError(ServiceError):
    """The queue is full, or too many uploads are being read; ``retry_after`` says when there will be room."""

    status, code, title = 429, "queue-full", "The service is busy"


class ClientGoneError(ServiceError):
    """The client disconnected. This status appears only in the access log and the metrics."""

    status, code, title = 499, "client-gone", "The client closed the connection"


class InferenceError(ServiceError):
    """The model failed on the cells of this request. Other requests in the same batch are not affected."""

    status, code, title = 500, "inference-failed", "The model failed on these cells"


class NotReadyError(ServiceError):
    """The model is still loading, or failed to load."""

    status, code, title = 503, "not-ready", "The service is not ready"


class StorageFullError(ServiceError):
    """The disk, the spool or the Redis that would keep the work is full."""

    status, code, title = 507, "storage-full", "The service has no room left to store this"


class InterruptedParserError(ServiceError):
    """The process that read the upload was ended from outside, twice. The upload is not at fault."""

    status, code, title = 503, "parser-interrupted", "A process of the service was stopped"


class UnknownJobError(ServiceError):
    """The job does not exist, has expired, or belongs to another key."""

    status, code, title = 404, "unknown-job", "There is no such job"


class JobNotFinishedError(ServiceError):
    """The job has no result: it is still running, failed, or was cancelled."""

    status, code, title = 409, "job-not-finished", "The job has no result"


class JobModelGoneError(ServiceError):
    """The model of the job is no longer served, so nothing more can be computed for its cells."""

    status, code, title = 409, "job-model-gone", "The model of this job is no longer served"


class IdempotencyError(ServiceError):
    """The ``Idempotency-Key`` was already used for a different request."""

    status, code, title = 409, "idempotency-key-reused", "This idempotency key belongs to another request"


class JobStorageError(ServiceError):
    """Reading or writing the storage of jobs failed."""

    status, code, title = 500, "job-storage", "The storage of jobs failed"


class DrainingError(ServiceError):
    """The service is shutting down and accepts no new work."""

    status, code, title = 503, "draining", "The service is shutting down"

    def __init__(self, detail: str, *, field: str | None = None, retry_after: int | None = 5) -> None:
        super().__init__(detail, field=field, retry_after=retry_after)


class QueueError(UserError):
    """The queue cannot be used; the message says why. Raised at startup, so clients never see it."""
