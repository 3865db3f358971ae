"""Turn a request with ``Prefer: respond-async`` into a job."""

from __future__ import annotations

from dataclasses import replace

import orjson
from fastapi import Request, Response

from scpalm.app.errors import IdempotencyError, InvalidParameterError
from scpalm.app.http.dependencies import charge_cells
from scpalm.app.http.disconnect import unless_disconnected
from scpalm.app.http.request import CellRequest, bind, received
from scpalm.app.jobs.manifest import Manifest
from scpalm.app.parsing.upload import Upload
from scpalm.app.service import Service
from scpalm.model.spec import RequestSpec

_LONGEST_KEY = 200


def wants_async(prefer: str) -> bool:
    """Whether a ``Prefer`` header (RFC 7240) asks for a job."""
    return any(part.partition(";")[0].strip().lower() == "respond-async" for part in prefer.split(","))


async def accept_job(request: Request, service: Service, owner: str, spec: RequestSpec) -> Response:
    """Create a job and respond 202 with its location. A repeated ``Idempotency-Key`` returns the same job.

    The body is opened first, so that faults in it or in the options are reported now, not by a failed job.

    Raises:
        ServiceError, InputError, MissingPartError: the request cannot be accepted.
    """
    key = request.headers.get("idempotency-key")
    async with received(request, service, spec) as call:
        if key is not None and not 0 < len(key) <= _LONGEST_KEY:
            raise InvalidParameterError(
                f"The idempotency key must have 1 to {_LONGEST_KEY} characters.", field="Idempotency-Key"
            )
        upload = await unless_disconnected(request, _checked(call))
        manifest = Manifest.of(upload, call.model.identity)
        job = await service.jobs.accept(owner, call.upload.body, manifest, key, call.model)
        if key is not None and Manifest.from_json(job.manifest) != manifest:
            raise IdempotencyError(
                "This key was already used for a different request. Use a new key.", field="Idempotency-Key"
            )
    headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async"}
    content = orjson.dumps({"id": job.id, "state": job.state})
    return Response(content, 202, headers, media_type="application/json")


async def _checked(call: CellRequest) -> Upload:
    """Open the body, resolve the options, and charge the cells to the key. The upload has the options of its body."""
    head = await call.model.parsers.head(call.upload)
    spec = call.whole_spec(head)
    await bind(spec, call.model, head)
    await charge_cells(call.request, head.num_cells)
    return replace(call.upload, spec=spec)
