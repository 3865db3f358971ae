"""A request with ``Prefer: respond-async`` becomes a job."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import orjson
from fastapi import Request, Response

from scpalm.app.codecs.codec import CHUNK_CELLS
from scpalm.app.errors import IdempotencyError, InvalidParameterError, ServiceError
from scpalm.app.http.body import discard_body
from scpalm.app.http.dependencies import charge_cells
from scpalm.app.http.request import negotiate, receive
from scpalm.app.jobs.manifest import Manifest
from scpalm.app.parsing.pool import Opened
from scpalm.app.parsing.upload import Upload
from scpalm.app.serving.model import Model
from scpalm.app.serving.service import Service
from scpalm.app.tasks.plans import Asked, names_of_drugs
from scpalm.model.errors import InputError
from scpalm.model.genes.normalize import Declared

_LONGEST_KEY = 200


def wants_async(prefer: str) -> bool:
    """Whether a ``Prefer`` header (RFC 7240) asks for a job."""
    return any(part.partition(";")[0].strip().lower() == "respond-async" for part in prefer.split(","))


async def accept_job(
    request: Request,
    service: Service,
    owner: str,
    asked: Asked,
    model_name: str | None,
    layer: str | None,
    declared: Declared,
) -> Response:
    """202 with the job's address; the same request again gives the same job. Raises ServiceError."""
    settings = service.settings
    key = request.headers.get("idempotency-key")
    try:
        model = service.ready_model(model_name)
        codec, media_type = negotiate(request)
        if key is not None and not 0 < len(key) <= _LONGEST_KEY:
            raise InvalidParameterError(f"Use 1 to {_LONGEST_KEY} characters.", field="Idempotency-Key")
        await asyncio.to_thread(
            asked.tasks, model.bundle, model.info
        )  # unknown names are told now, not by a failed job
    except ServiceError:
        await discard_body(request, idle_seconds=settings.body_idle_seconds)
        raise
    with (
        model.held(),
        service.upload_slot(),
        tempfile.TemporaryDirectory(prefix="scpalm-", dir=settings.spool_dir, ignore_cleanup_errors=True) as folder,
    ):
        body = await receive(request, service, Path(folder))
        upload = Upload(
            body.path if body.path is not None else (body.data or b""),
            codec.media_type,
            body.content_encoding,
            layer,
            declared,
            settings.max_cells,
            settings.max_body_bytes,
        )
        await charge_cells(request, await _num_cells(model, upload))
        # A job's body is kept without the form around it.
        asked = replace(asked, drugs=(*asked.drugs, *names_of_drugs(body.fields))) if asked.extras else asked
        manifest = Manifest(codec.media_type, body.content_encoding, media_type, asked, layer, declared, model.identity)
        job = await service.jobs.accept(owner, body, manifest, key, model)
        if key is not None and Manifest.from_json(job.manifest) != manifest:
            raise IdempotencyError("This key named another request before. Use a new one.", field="Idempotency-Key")
    content = orjson.dumps({"id": job.id, "state": job.state})
    headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async"}
    return Response(content, 202, headers, media_type="application/json")


async def _num_cells(model: Model, upload: Upload) -> int:
    """Cells of a body; 0 for a body that cannot be opened, whose job will fail with the reason."""
    num_cells = 0
    try:
        async with aclosing(model.parsers.parse(upload)) as parts:
            async for part in parts:
                if isinstance(part, Opened):
                    num_cells = part.num_cells
                # A small body is read to its end: stopping early costs a new parser process.
                if num_cells > CHUNK_CELLS:
                    break
    except (InputError, ServiceError):
        return num_cells
    return num_cells
