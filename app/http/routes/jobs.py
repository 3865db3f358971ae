"""State, events and results of jobs. A job is a request sent with ``Prefer: respond-async``."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from scpalm.app.background import completed
from scpalm.app.codecs.registry import writer_for
from scpalm.app.codecs.result import Result
from scpalm.app.errors import JobNotFinishedError, ServiceError, UnknownJobError
from scpalm.app.http.dependencies import ServiceDep, ViewerDep
from scpalm.app.http.negotiation import choose_media_type, offers_after
from scpalm.app.http.openapi.answers import result_formats
from scpalm.app.http.openapi.components import json_answer
from scpalm.app.http.openapi.headers import CELL_ANSWER_HEADERS
from scpalm.app.http.request import SMALL_ANSWER_BYTES, SpooledResponse, encode, respond, result_headers, server_timing
from scpalm.app.jobs.answers import AnswerStore, StoredAnswer
from scpalm.app.jobs.files import JobFiles
from scpalm.app.jobs.ledger.ledger import OPEN, Job
from scpalm.app.jobs.manifest import BODY_FILE, Manifest
from scpalm.app.jobs.store import JobStore
from scpalm.app.service import Service
from scpalm.app.storage.scratch import ensure_folder, scratch_folder
from scpalm.app.telemetry.access import access_note

log = logging.getLogger("scpalm.request")

router = APIRouter(tags=["jobs"])

_UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"description": "No such job."}}
_EVENT_SECONDS = 0.5


class JobState(BaseModel):
    """State and progress of a job."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": "2ceebb982b8541b4",
                "state": "running",
                "rows_done": 2048,
                "rows": 6000,
                "rows_per_second": 450.0,
                "seconds_left": 8.8,
                "stage": "computing",
                "share": 0.34,
                "error": None,
            }
        }
    )

    id: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    rows_done: int = Field(description="Number of cells whose results are stored.")
    rows: int | None = Field(description="Number of cells in total; null until the body has been opened.")
    rows_per_second: float | None = Field(description="Cells per second since the job was last started.")
    seconds_left: float | None = Field(description="Estimated time left at that rate.")
    stage: Literal["waiting", "reading", "computing", "concluding"] | None = Field(
        description="What happens now; null if the job has ended. `computing`: the network, cell by cell. "
        "`concluding`: what needs all cells, such as a map of them."
    )
    share: float | None = Field(description="Finished share of the stage, from 0 to 1; null if it is not known.")
    error: str | None = Field(description="Why the job failed.")


class JobList(BaseModel):
    """The most recent jobs."""

    jobs: list[JobState]


def state_of(job: Job, share_concluded: float | None = None) -> JobState:
    """The state of a job as the API reports it. ``share_concluded``: finished share of the last stage, if known."""
    stage, share = _stage_of(job)
    speed = left = None
    if job.started is not None and job.rows_done:
        speed = job.rows_done / max(1e-3, (job.ended or time.time()) - job.started)
        if job.state == "running" and job.rows is not None:
            left = (job.rows - job.rows_done) / speed
    return JobState(
        id=job.id,
        state=job.state,
        rows_done=job.rows_done,
        rows=job.rows,
        rows_per_second=speed,
        seconds_left=left,
        stage=stage,
        share=share_concluded if stage == "concluding" else share,
        error=job.error,
    )


def _stage_of(job: Job) -> tuple[Literal["waiting", "reading", "computing", "concluding"] | None, float | None]:
    if job.state == "queued":
        return "waiting", None
    if job.state != "running":
        return None, None
    if job.rows is None:
        return "reading", None
    return ("computing", job.rows_done / job.rows) if job.rows_done < job.rows else ("concluding", None)


async def job_of(job_id: str, service: Service, owner: str | None) -> Job:
    """The job of this owner; None is any owner. Raises UnknownJobError."""
    job = await service.jobs.ledger.get(job_id, owner)
    if job is None:
        raise UnknownJobError("There is no such job. It may have expired, or belong to another key.", field="id")
    return job


@router.get("/jobs", operation_id="list_jobs", response_model=JobList)
async def list_jobs(service: ServiceDep, owner: ViewerDep) -> JobList:
    """List the 100 most recent jobs, newest first."""
    return JobList(jobs=[state_of(job) for job in await service.jobs.ledger.latest(owner)])


@router.get(
    "/jobs/{job_id}",
    operation_id="get_job",
    response_model=JobState,
    responses={200: json_answer(JobState, "State and progress."), **_UNKNOWN},
)
async def get_job(job_id: str, service: ServiceDep, owner: ViewerDep) -> JobState:
    """Get the state and progress of a job."""
    return state_of(await job_of(job_id, service, owner), service.jobs.share_concluded(job_id))


@router.delete("/jobs/{job_id}", operation_id="cancel_job", response_model=JobState, responses=_UNKNOWN)
async def cancel_job(job_id: str, service: ServiceDep, owner: ViewerDep) -> JobState:
    """Cancel a queued or running job, or remove one that succeeded or failed, with its result."""
    job = await job_of(job_id, service, owner)
    if job.state in ("succeeded", "failed"):
        await service.jobs.remove(job)
        return state_of(job)
    await service.jobs.cancel(job)
    return state_of(await job_of(job_id, service, owner))


def _event(name: str, content: dict[str, object]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + orjson.dumps(content) + b"\n\n"


def _has_moved(before: JobState, now: JobState) -> bool:
    return (before.state, before.stage, before.share) != (now.state, now.stage, now.share)


async def _is_draining(service: Service) -> bool:
    """Whether the service stops; waits for that until the next look at the job."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(service.draining.wait(), _EVENT_SECONDS)
    return service.draining.is_set()


@router.get(
    "/jobs/{job_id}/events",
    operation_id="get_job_events",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events: `progress` with the job's state, and `end` as the last one; or "
            "`draining` as the last one when this service stops while the job goes on.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **_UNKNOWN,
    },
)
async def get_events(job_id: str, service: ServiceDep, owner: ViewerDep) -> Response:
    """Stream the state of a job, now and after every change, until the job ends."""
    await job_of(job_id, service, owner)

    async def events() -> AsyncIterator[bytes]:
        last: JobState | None = None
        while True:
            try:
                job = await service.jobs.ledger.get(job_id, owner)
            except ServiceError as error:  # Redis or the disk is away for a moment; comments keep the stream open
                yield f": {' '.join(error.detail.split())}\n\n".encode()
            else:
                if job is None:
                    return
                ended = job.state not in OPEN
                state = state_of(job, service.jobs.share_concluded(job_id))
                if ended or last is None or _has_moved(last, state):
                    last = state
                    yield _event("end" if ended else "progress", state.model_dump())
                if ended:
                    return
            if await _is_draining(service):
                yield _event(
                    "draining", {"detail": "The service stops. The job goes on; follow it again.", "id": job_id}
                )
                return

    return StreamingResponse(events(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


@router.get(
    "/jobs/{job_id}/result",
    operation_id="get_job_result",
    response_class=Response,
    responses={
        200: {
            "description": "The result, as the request would have been answered, in the format chosen by `Accept`.",
            "content": result_formats(),
            "headers": CELL_ANSWER_HEADERS,
        },
        **_UNKNOWN,
        409: {"description": "The job is not finished, has failed, or was cancelled."},
    },
)
async def get_result(job_id: str, request: Request, service: ServiceDep, owner: ViewerDep) -> Response:
    """Get the result of a job that has succeeded."""
    job = await job_of(job_id, service, owner)
    if job.state != "succeeded":
        reason = f": {job.error}" if job.error else f", {job.rows_done} of {job.rows or '?'} cells are done."
        raise JobNotFinishedError(f"The job is {job.state}{reason}")
    manifest = Manifest.from_json(job.manifest)
    note = access_note(request.scope)
    note.model, note.rows = manifest.model, job.rows
    media_type = choose_media_type(request.headers.get("accept"), offers_after(manifest.spec.format))
    started = time.monotonic()
    files = service.jobs.files_of(job)
    # One reader encodes the result, and the others are sent the same file.
    async with service.answer_locks.setdefault((job.id, media_type), asyncio.Lock()):
        answer = await asyncio.to_thread(AnswerStore(files).find, media_type)
        if answer is None:
            encoded = await _encoded(service, files, manifest, media_type)
            if not isinstance(encoded, StoredAnswer):
                content, result = encoded
                return respond(content, media_type, {"read": time.monotonic() - started}, result)
            answer = encoded
    return await _stored(service, files, answer, media_type, started)


async def _encoded(
    service: Service, files: JobFiles, manifest: Manifest, media_type: str
) -> StoredAnswer | tuple[bytes | Path, Result]:
    """Encode the result of a job, and store it; a small one, or one for which there is no room, is returned."""
    model = service.model()  # any model will do: only its parser processes are used, to encode the result
    writer = writer_for(media_type)
    with model.held():
        async with scratch_folder(service.limits.spool_dir) as folder:
            with ExitStack() as local:
                result = await asyncio.to_thread(JobStore(files).read, manifest.model, folder)
                upload = None
                if writer is not None and writer.extends_files and media_type == manifest.media_type:
                    # Only such a result contains the body.
                    body = files.local(BODY_FILE, ensure_folder(folder))
                    upload = manifest.upload(await asyncio.to_thread(local.enter_context, body))
                content = await encode(model, result, media_type, upload)
    if isinstance(content, bytes) and len(content) <= SMALL_ANSWER_BYTES:
        return content, result
    suffix = "" if writer is None else writer.suffix
    filename, headers = f"{result.outputs[0].spec.key}{suffix}", result_headers(media_type, result)
    try:
        answer = await asyncio.to_thread(AnswerStore(files).add, media_type, content, filename, headers)
    except ServiceError as error:  # the disk of jobs may be full while there is room for this one answer
        log.warning("the encoded result of a job cannot be stored: %s", error.detail)
        return content, result
    except BaseException:
        _remove(content)
        raise
    await asyncio.to_thread(_remove, content)
    return answer


def _remove(content: bytes | Path) -> None:
    if isinstance(content, Path):
        content.unlink(missing_ok=True)


async def _stored(service: Service, files: JobFiles, answer: StoredAnswer, media_type: str, started: float) -> Response:
    """The response that sends a stored file. An object store needs a local copy, which is removed afterwards."""
    with ExitStack() as held:
        folder = service.limits.spool_dir / f"scpalm-{uuid4().hex}"
        held.callback(shutil.rmtree, folder, ignore_errors=True)
        local = files.local(answer.file, ensure_folder(folder))
        path = await completed(asyncio.to_thread(held.enter_context, local))
        headers = {**answer.headers, "Server-Timing": server_timing({"read": time.monotonic() - started})}
        release = held.pop_all().close
        return SpooledResponse(path, release, headers, media_type=media_type, name=answer.filename)
