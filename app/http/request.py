"""The path of a request with cells: body -> parser -> queue -> device -> encoder -> response."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from scpalm.app.codecs.codec import Reader
from scpalm.app.codecs.h5ad import MEDIA_TYPE as H5AD
from scpalm.app.codecs.registry import writer_for
from scpalm.app.codecs.result import Result
from scpalm.app.errors import ServiceError
from scpalm.app.execution.execution import Execution
from scpalm.app.http.body import discard_body, read_upload
from scpalm.app.http.dependencies import charge_cells
from scpalm.app.http.disconnect import unless_disconnected
from scpalm.app.http.negotiation import negotiate
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.service import Service
from scpalm.app.serving.model import ServedModel
from scpalm.app.storage.scratch import scratch_folder
from scpalm.model.errors import ParameterError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.output.note import note_of
from scpalm.model.spec import RequestSpec, metadata_of
from scpalm.model.tasks.task import BoundTask, TaskContext

# Encoding a result up to this size takes less time than handing it to another process.
SMALL_ANSWER_BYTES = 64 << 10

Parts = AsyncGenerator[UploadHead | Prepared]


async def answer_cells(request: Request, service: Service, spec: RequestSpec) -> Response:
    """Compute what ``spec`` asks for from the cells in the body.

    Raises:
        ServiceError, InputError, MissingPartError: the request failed; `problems` renders the response.
    """
    async with received(request, service, spec) as call:
        return await unless_disconnected(request, _answer(call))


async def _answer(call: CellRequest) -> Response:
    spec = call.upload.spec
    async with aclosing(call.model.parsers.parse(call.upload)) as parts:
        head = await call.open(parts)
        result = await call.compute(spec, head, parts)
    encoding = time.monotonic()
    content = await encode(call.model, result, spec.format, call.upload)
    call.trace(encoding, head.num_cells)
    return respond(content, spec.format, call.durations(), result.outputs[0].spec.key)


@asynccontextmanager
async def received(
    request: Request, service: Service, spec: RequestSpec, reader: Reader | None = None
) -> AsyncIterator[CellRequest]:
    """Choose the model and the formats, then read the body. Within the context, the model and the files stay available.

    Args:
        request: the request.
        service: the service of this process.
        spec: the requested tasks and options.
        reader: fixed reader of a route that accepts one media type. Default: chosen by the headers.

    Raises:
        ServiceError, ParameterError: the request cannot be accepted.
    """
    with ExitStack() as slot:
        try:
            spec.check_options()
            model = service.ready_model(spec.model, spec.version)
            reader, media_type = negotiate(request, reader)
            slot.enter_context(service.upload_slot())
        except (ServiceError, ParameterError):
            await discard_body(request, idle_seconds=service.limits.idle_seconds)
            raise
        spec = replace(spec, format=media_type)
        with model.held():
            async with scratch_folder(service.limits.spool_dir) as folder:
                upload = await read_upload(request, folder, reader, spec, service.limits)
                yield CellRequest(request, service, model, upload, folder, reader.name, slot.close)


@dataclass(eq=False)
class CellRequest:
    """One request whose body has been received.

    Attributes:
        request: the HTTP request.
        service: the service of this process.
        model: the model to use.
        upload: the received body.
        folder: for files of this request; removed at its end.
        format_name: format of the body, for metrics.
        release_slot: call it when the body has been parsed, to free the upload slot.
        started: when the body had arrived, by the monotonic clock.
        stages: start and end of each stage, by the monotonic clock.
    """

    request: Request
    service: Service
    model: ServedModel
    upload: Upload
    folder: Path
    format_name: str
    release_slot: Callable[[], None]
    started: float = field(default_factory=time.monotonic)
    stages: dict[str, tuple[float, float]] = field(default_factory=dict)

    async def open(self, parts: Parts) -> UploadHead:
        """Take the head of the upload from its parts, and charge its cells to the API key.

        Raises RateLimitError, and any error of the parser.
        """
        head = await anext(parts)
        assert isinstance(head, UploadHead)
        self.service.metrics.genes_matched_ratio.observe(head.coverage.genes_matched / max(1, head.coverage.genes_in))
        await charge_cells(self.request, head.num_cells)
        return head

    async def compute(self, spec: RequestSpec, head: UploadHead, parts: Parts) -> Result:
        """Send the cells through the queue as they are parsed. Raises ServiceError, InputError, MissingPartError."""
        model, metrics = self.model, self.service.metrics
        tasks = await bind(spec, model, head)
        lane = model.lane_of(head.num_cells)
        async with Execution(model.transport, tasks, head.num_cells, lane, self.folder) as execution:
            async for part in parts:
                assert isinstance(part, Prepared)
                await execution.add(part)
            parsed = time.monotonic()
            self.release_slot()
            metrics.parse_duration.labels(self.format_name).observe(parsed - self.started)
            outputs = await execution.outputs()
            timing = execution.timing()
        on_device = timing.started + timing.queue_seconds
        self.stages = {
            "parse": (self.started, parsed),
            "queue": (timing.started, on_device),
            "inference": (on_device, on_device + timing.inference_seconds),
        }
        name = (model.bundle.name, model.bundle.version)
        # For drugs it compares fingerprints, which takes as long as binding them.
        metadata = metadata_of(tasks) if spec.quick else await asyncio.to_thread(metadata_of, tasks)
        return Result(execution.cells, outputs, note_of(name, head.coverage, execution.report, metadata))

    def durations(self) -> dict[str, float]:
        """Duration of each stage in seconds. Parsing and inference overlap."""
        return {name: end - start for name, (start, end) in self.stages.items()}

    def trace(self, encoding: float, num_cells: int) -> None:
        """End the stage ``encode``, which began at ``encoding``, and record all stages as spans, if tracing is on."""
        self.stages["encode"] = (encoding, time.monotonic())
        if self.service.tracing is not None:
            stages = [(name, start, end) for name, (start, end) in self.stages.items()]
            self.service.tracing.stages(stages, cells=num_cells)


async def bind(spec: RequestSpec, model: ServedModel, head: UploadHead) -> tuple[BoundTask, ...]:
    """Bind the tasks of a spec to the opened cells. Raises ParameterError, InputError, MissingPartError."""
    # Results use the columns of the user's file only if that file is returned.
    columns = head.columns if spec.format == H5AD else None
    context = TaskContext(model.bundle, model.info, head.num_cells, columns, head.members)
    # Parsing hundreds of SMILES would block other requests, so it runs in a thread.
    return spec.bind(context) if spec.quick else await asyncio.to_thread(spec.bind, context)


async def encode(model: ServedModel, result: Result, media_type: str, upload: Upload | None) -> bytes | Path:
    """Encode a result as bytes, or as a file that `respond` removes. A parser process encodes large results."""
    writer = writer_for(media_type)
    if writer is not None and not writer.extends_files and result.num_bytes <= SMALL_ANSWER_BYTES:
        content = writer.encode(result, Path(os.devnull))
        if content is not None:
            return content
    return await model.parsers.encode(result, media_type, upload)


class _SpooledResponse(FileResponse):
    """A response that sends a file and then deletes it, even if sending fails."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.to_thread(Path(self.path).unlink, missing_ok=True)


def respond(content: bytes | Path, media_type: str, durations: dict[str, float], key: str) -> Response:
    """The response, with a ``Server-Timing`` header. ``key`` becomes the file name of a download."""
    timing = ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in durations.items())
    headers = {"Server-Timing": timing}
    if isinstance(content, Path):
        return _SpooledResponse(content, headers=headers, media_type=media_type, filename=f"{key}{content.suffix}")
    return Response(content, headers=headers, media_type=media_type)
