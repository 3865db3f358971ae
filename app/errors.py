"""One tree of errors: each class carries its HTTP status, code and title; `problems` turns them into answers."""

from __future__ import annotations

from typing import ClassVar

from scpalm.model.errors import UserError


class ServiceError(UserError):
    """Something a client should hear about, other than its cells being wrong (`scpalm.model.errors.InputError`).

    Attributes:
        status, code, title: of the class; the code ends the problem's ``type``.
        detail: what is wrong here and how to mend it.
        field: the part of the request at fault, where one is.
        retry_after: seconds until another try makes sense, where waiting helps.
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
    """The error with this code, as sent by another process; InferenceError for an unknown code."""
    kinds = {kind.code: kind for kind in ServiceError.__subclasses__()}
    return kinds.get(code, InferenceError)(detail, field=field, retry_after=retry_after)


class BadRequestError(ServiceError):
    """A request that is broken before its cells are looked at: a form without its boundary, a missing file field."""

    status, code, title = 400, "bad-request", "The request cannot be read"


class MissingKeyError(ServiceError):
    """No API key, or one that is not known."""

    status, code, title = 401, "key-missing", "An API key is needed"


class ForbiddenError(ServiceError):
    """A key that may not do this."""

    status, code, title = 403, "key-not-allowed", "This API key may not do this"


class RateLimitError(ServiceError):
    """A key that has sent all it may for now; ``retry_after`` says when it may again."""

    status, code, title = 429, "rate-limit", "This API key has sent too much"


class DeadlineError(ServiceError):
    """The deadline that the client set has passed."""

    status, code, title = 504, "deadline", "The deadline of the request has passed"


class NotFoundError(ServiceError):
    """A path that the service does not have."""

    status, code, title = 404, "not-found", "There is nothing at this address"


class UnknownModelError(ServiceError):
    """A model that this service does not serve."""

    status, code, title = 404, "unknown-model", "There is no such model"


class UnsupportedTaskError(ServiceError):
    """A task for which the served model lacks a part."""

    status, code, title = 404, "unsupported-task", "The model cannot do this"


class MethodNotAllowedError(ServiceError):
    """A path asked with a method it does not have."""

    status, code, title = 405, "method-not-allowed", "This address does not take this method"


class NotAcceptableError(ServiceError):
    """``Accept`` names no format that this answer can be written in."""

    status, code, title = 406, "not-acceptable", "The answer has no such format"


class BodyTimeoutError(ServiceError):
    """A body of which nothing came for too long."""

    status, code, title = 408, "body-timeout", "The body did not arrive in time"


class TooLargeError(ServiceError):
    """Over a limit on bytes (also after decompression) or on cells."""

    status, code, title = 413, "too-large", "The request is over a limit of this service"


class UnsupportedMediaTypeError(ServiceError):
    """A body whose media type or content encoding no codec reads."""

    status, code, title = 415, "unsupported-media-type", "This kind of body is not understood"


class InvalidParameterError(ServiceError):
    """A query parameter, header or field that has a value it cannot have."""

    status, code, title = 422, "invalid-parameter", "A parameter has a value it cannot have"


class QueueFullError(ServiceError):
    """More cells are waiting than the service queues; ``retry_after`` is the measured time to drain them."""

    status, code, title = 429, "queue-full", "Too many cells are waiting"


class ClientGoneError(ServiceError):
    """The client hung up; nobody reads this answer, the access log does."""

    status, code, title = 499, "client-gone", "The client closed the connection"


class InferenceError(ServiceError):
    """The model failed on this request's cells; others in the same batch were not harmed."""

    status, code, title = 500, "inference-failed", "The model failed on these cells"


class NotReadyError(ServiceError):
    """The model is not loaded yet, or could not be."""

    status, code, title = 503, "not-ready", "The service is not ready"


class StorageFullError(ServiceError):
    """There is no room left on the disk that keeps uploads meanwhile."""

    status, code, title = 503, "storage-full", "The service has no room for this body"


class UnknownJobError(ServiceError):
    """A job that does not exist, has expired, or belongs to another key."""

    status, code, title = 404, "unknown-job", "There is no such job"


class JobNotFinishedError(ServiceError):
    """The result of a job that is not done, failed, or was cancelled."""

    status, code, title = 409, "job-not-finished", "The job has no result"


class IdempotencyError(ServiceError):
    """An ``Idempotency-Key`` used again for another request."""

    status, code, title = 409, "idempotency-key-reused", "This key belongs to another request"


class JobStorageError(ServiceError):
    """The folder of jobs cannot be used."""

    status, code, title = 500, "job-storage", "The job cannot be kept"


class DrainingError(ServiceError):
    """The service is shutting down and takes no new work."""

    status, code, title = 503, "draining", "The service is shutting down"


class QueueError(UserError):
    """The queue's server cannot be used; the text says why. It stops the start, so no client ever sees it."""
