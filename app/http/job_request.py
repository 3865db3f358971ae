"""Turn a request with ``Prefer: respond-async`` into a job."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import orjson
from fastapi import Request, Response

from scpalm.app.auth.keys import ApiKey
from scpalm.app.background import completed
from scpalm.app.errors import InvalidParameterError, JobModelGoneError, RateLimitError, ServiceError
from scpalm.app.http.body import discard_body
from scpalm.app.http.dependencies import charge_cells, check_tasks, refund_cells
from scpalm.app.http.disconnect import unless_disconnected
from scpalm.app.http.request import CellRequest, received
from scpalm.app.jobs.ledger.ledger import Job
from scpalm.app.jobs.manifest import BODY_FILE, Manifest
from scpalm.app.jobs.usage import usage_of
from scpalm.app.parsing.upload import Upload
from scpalm.app.service import Service
from scpalm.app.serving.labelled import open_labelled
from scpalm.app.storage.scratch import ensure_folder
from scpalm.app.telemetry.access import access_note
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.registry import tasks

_LONGEST_KEY = 200
_QUOTA_RETRY_SECONDS = 60


def wants_async(prefer: str) -> bool:
    """Whether a ``Prefer`` header (RFC 7240) asks for a job."""
    return any(part.partition(";")[0].strip().lower() == "respond-async" for part in prefer.split(","))


async def accept_job(request: Request, service: Service, owner: str, spec: RequestSpec) -> Response:
    """Create a job and respond 202 with its location. A repeated request returns the same job and costs nothing.

    A new body is opened first, so that faults in it or in the options are reported now, not by a failed job.

    Raises:
        ServiceError, InputError, MissingPartError: the request cannot be accepted.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= _LONGEST_KEY:
        await discard_body(request, service.limits)
        raise InvalidParameterError(
            f"The idempotency key must have 1 to {_LONGEST_KEY} characters; this one has {len(key)}.",
            field="Idempotency-Key",
        )
    async with received(request, service, spec) as call:
        job = await _accept(call, owner, key)
    return _accepted(job)


async def accept_more(request: Request, service: Service, job: Job, task: str, scratch: Path) -> Response:
    """Create a job with another task for the cells of a job, and respond like `accept_job`.

    Raises:
        ServiceError, MissingPartError: the job cannot be created.
    """
    old = Manifest.from_json(job.manifest)
    if old.labelled is not None and tasks()[task].reads_labelled:
        raise InvalidParameterError(f"'{task}' would need the labelled cells of the other request.", field="task")
    spec = replace(old.spec, tasks=(task,), options={})
    check_tasks(request, spec)
    model = service.models.exactly(old.model)
    if model is None:
        raise JobModelGoneError("The model of this job was replaced. Send the cells again.")
    note = access_note(request.scope)
    note.model, note.rows = model.identity, job.rows
    manifest = replace(old, spec=spec, labelled=None)
    with ExitStack() as local, model.held():
        stored = service.jobs.files_of(job).local(BODY_FILE, ensure_folder(scratch))
        body = await completed(asyncio.to_thread(local.enter_context, stored))
        submission = await asyncio.to_thread(manifest.submission, body, job.owner, None)
        found = await service.jobs.ledger.find(submission)
        if found is None:
            await check_quotas(request, service)
            num_cells = job.rows or 0
            await charge_cells(request, num_cells)
            try:
                found, _ = await service.jobs.accept(body, submission, manifest, model)
            except (ServiceError, OSError):
                await refund_cells(request, num_cells)
                raise
    return _accepted(found)


async def check_quotas(request: Request, service: Service) -> None:
    """Raise RateLimitError if the API key of the request may send no more jobs.

    Requests at the same time may each see room for one job.
    """
    key: ApiKey | None = request.state.api_key
    if key is None or (key.max_jobs is None and key.max_result_bytes is None):
        return
    usage = await usage_of(key.name, service.jobs.ledger, service.jobs.files_of)
    for name, quota, used, what in (
        ("max_jobs", key.max_jobs, usage.num_jobs, "jobs"),
        ("max_result_bytes", key.max_result_bytes, usage.num_bytes, "bytes of jobs"),
    ):
        if quota is not None and used >= quota:
            raise RateLimitError(
                f"The key '{key.name}' has {used} {what}; its quota ({name}) is {quota}. Remove a job with "
                "DELETE /jobs/ID, or wait until one expires.",
                retry_after=_QUOTA_RETRY_SECONDS,
            )


def _accepted(job: Job) -> Response:
    headers = {"Location": f"/jobs/{job.id}", "Preference-Applied": "respond-async"}
    return Response(orjson.dumps({"id": job.id, "state": job.state}), 202, headers, media_type="application/json")


async def _accept(call: CellRequest, owner: str, key: str | None) -> Job:
    jobs, body = call.service.jobs, call.upload.body
    manifest = Manifest.of(call.upload, call.model.identity)
    labelled = call.upload.labelled
    second = None if labelled is None else labelled.body
    submission = await asyncio.to_thread(manifest.submission, body, owner, key, second)
    if (known := await jobs.ledger.find(submission)) is not None:
        return known  # paid for and checked when it was new
    await check_quotas(call.request, call.service)
    upload, num_cells = await unless_disconnected(call.request, _checked(call))
    manifest = Manifest.of(upload, call.model.identity)
    await charge_cells(call.request, num_cells)
    try:
        job, is_new = await jobs.accept(body, submission, manifest, call.model, second)
    except (ServiceError, OSError):
        await refund_cells(call.request, num_cells)
        raise
    if not is_new:  # the same request came twice at once, and the other one has paid
        await refund_cells(call.request, num_cells)
    return job


async def _checked(call: CellRequest) -> tuple[Upload, int]:
    """Open the body and resolve the options. The upload with the options of its body, and the number of cells."""
    head = await call.model.parsers.head(call.upload)
    access_note(call.request.scope).rows = head.num_cells
    spec = call.whole_spec(head)
    num_cells = head.num_cells
    if call.upload.labelled is not None:
        call.labelled = await open_labelled(call.model, call.upload.labelled)  # not embedded yet
        num_cells += len(call.labelled.array)
    await call.bind(spec, head)
    return replace(call.upload, spec=spec), num_cells
