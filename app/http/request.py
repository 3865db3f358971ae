"""The path of a request with cells: body -> parser -> queue -> device -> encoder -> response."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from scpalm.app.codecs.codec import Reader
from scpalm.app.codecs.h5ad import MEDIA_TYPE as H5AD
from scpalm.app.codecs.registry import reader_for, writer_for
from scpalm.app.codecs.result import Result
from scpalm.app.errors import ServiceError
from scpalm.app.execution.conclusion import concluded, in_thread
from scpalm.app.execution.execution import Execution
from scpalm.app.http.body import discard_body, memory_of, read_upload
from scpalm.app.http.dependencies import charge_cells, check_tasks, upload_client
from scpalm.app.http.disconnect import unless_disconnected
from scpalm.app.http.negotiation import choose_media_type, negotiate, offers_after
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.queue.transport import Turn
from scpalm.app.service import Service
from scpalm.app.serving.labelled import embed_labelled, open_labelled
from scpalm.app.serving.model import ServedModel
from scpalm.app.storage.scratch import scratch_folder
from scpalm.app.storage.values import ResultSpace
from scpalm.app.telemetry.access import access_note
from scpalm.model.annotation.labelled import LabelledCells
from scpalm.model.errors import ParameterError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.output.note import note_of
from scpalm.model.spec import RequestSpec, metadata_of
from scpalm.model.tasks.task import BoundTask, TaskContext

# Encoding a result up to this size takes less time than handing it to another process.
SMALL_ANSWER_BYTES = 64 << 10
_LONGEST_HEADER = 6_000  # clients and proxies refuse headers of 8 kB and more

Parts = AsyncGenerator[UploadHead | Prepared]


async def answer_cells(request: Request, service: Service, spec: RequestSpec) -> Response:
    """Compute what ``spec`` asks for from the cells in the body.

    Raises:
        ServiceError, InputError, MissingPartError: the request failed; `problems` renders the response.
    """
    async with received(request, service, spec) as call:
        return await unless_disconnected(request, _answer(call))


async def _answer(call: CellRequest) -> Response:
    async with aclosing(call.model.parsers.parse(call.upload)) as parts:
        head = await call.open(parts)
        spec = call.whole_spec(head)
        result = await call.compute(spec, head, parts)
    encoding = time.monotonic()
    content = await encode(call.model, result, spec.format, call.upload)
    call.trace(encoding, head.num_cells)
    return respond(content, spec.format, call.durations(), result)


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
            check_tasks(request, spec)
            model = service.ready_model(spec.model, spec.version)
            reader, media_type = negotiate(request, reader)
            slot.enter_context(service.upload_slots.hold(upload_client(request)))
            slot.enter_context(service.memory.reserve(memory_of(request)))
        except (ServiceError, ParameterError):
            await discard_body(request, service.limits)
            raise
        spec = replace(spec, format=media_type)
        with ExitStack() as held:
            held.enter_context(model.held())
            async with scratch_folder(service.limits.spool_dir) as folder:
                upload = await read_upload(request, folder, reader, spec, service.limits)
                check_tasks(request, upload.spec)  # a form may name more
                if upload.media_type != reader.media_types[0]:
                    upload, reader = _of_content(request, upload)
                if upload.spec.model != spec.model:  # named by a field of a form
                    model = service.ready_model(upload.spec.model, spec.version)
                    held.enter_context(model.held())
                access_note(request.scope).model = model.identity
                yield CellRequest(request, service, model, upload, folder, reader.name, slot.close)


def _of_content(request: Request, upload: Upload) -> tuple[Upload, Reader]:
    """An upload whose bytes are of another format than declared: the reader and the default response change with it."""
    reader = reader_for(upload.media_type)
    assert reader is not None, "signatures name registered formats"
    media_type = choose_media_type(request.headers.get("accept"), offers_after(reader.media_types[0]))
    return replace(upload, spec=replace(upload.spec, format=media_type)), reader


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
        labelled: the embedded cells of the file of labelled cells, once `open` has run; None if there is no such file.
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
    labelled: LabelledCells | None = None

    async def open(self, parts: Parts) -> UploadHead:
        """Take the head of the upload from its parts, charge its cells to the API key, and embed the labelled cells.

        Raises RateLimitError, and any error of the parser or the queue.
        """
        head = await anext(parts)
        assert isinstance(head, UploadHead)
        access_note(self.request.scope).rows = head.num_cells
        self.service.metrics.genes_matched_ratio.observe(head.coverage.genes_matched / max(1, head.coverage.genes_in))
        await charge_cells(self.request, head.num_cells)
        if self.upload.labelled is not None:
            num_labelled = len((await open_labelled(self.model, self.upload.labelled)).array)
            await charge_cells(self.request, num_labelled)
            turn = Turn(self.model.lane_of(num_labelled), upload_client(self.request))
            self.labelled = await embed_labelled(self.model, self.upload.labelled, self.folder, turn)
        return head

    def whole_spec(self, head: UploadHead) -> RequestSpec:
        """The spec with the options of a JSON body added. Raises ParameterError."""
        spec = self.upload.spec.with_body_options(head.members)
        spec.refuse_unread()
        if spec.model not in (None, self.upload.spec.model, self.model.bundle.name):
            raise ParameterError(
                f"The body asks for model '{spec.model}', but it was read for '{self.model.bundle.name}'. "
                f"Send it in the query: ?model={spec.model}.",
                field="model",
            )
        return spec

    async def bind(self, spec: RequestSpec, head: UploadHead) -> tuple[BoundTask, ...]:
        """Bind the tasks of a spec to the opened cells. Nothing runs that was not bound here, so keys are checked here.

        Raises ForbiddenError, ParameterError, InputError, MissingPartError.
        """
        check_tasks(self.request, spec)
        # Results use the columns of the user's file only if that file is returned.
        columns = head.columns if spec.format == H5AD else None
        context = TaskContext(
            self.model.bundle, self.model.info, head.num_cells, columns, head.members, head.obs, self.labelled
        )
        # Parsing hundreds of SMILES would block other requests, so it runs in a thread.
        return spec.bind(context) if spec.quick else await asyncio.to_thread(spec.bind, context)

    async def compute(self, spec: RequestSpec, head: UploadHead, parts: Parts) -> Result:
        """Send the cells through the queue as they are parsed. Raises ServiceError, InputError, MissingPartError."""
        model, metrics = self.model, self.service.metrics
        tasks = await self.bind(spec, head)
        turn = Turn(model.lane_of(head.num_cells), upload_client(self.request))
        space = ResultSpace(self.folder, model.memory)
        async with Execution(model.transport, tasks, head.num_cells, turn, space) as execution:
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
        outputs = await in_thread(tasks, partial(concluded, tasks, outputs))
        # For drugs it compares fingerprints, which takes as long as binding them.
        metadata = metadata_of(tasks) if spec.quick else await asyncio.to_thread(metadata_of, tasks)
        return Result(execution.cells, outputs, note_of(model.identity, head.coverage, execution.report, metadata))

    def durations(self) -> dict[str, float]:
        """Duration of each stage in seconds. Parsing and inference overlap."""
        return {name: end - start for name, (start, end) in self.stages.items()}

    def trace(self, encoding: float, num_cells: int) -> None:
        """End the stage ``encode``, which began at ``encoding``, and record all stages as spans, if tracing is on."""
        self.stages["encode"] = (encoding, time.monotonic())
        if self.service.tracing is not None:
            stages = [(name, start, end) for name, (start, end) in self.stages.items()]
            self.service.tracing.stages(stages, cells=num_cells)


async def encode(model: ServedModel, result: Result, media_type: str, upload: Upload | None) -> bytes | Path:
    """Encode a result as bytes, or as a file that `respond` removes. A parser process encodes large results."""
    writer = writer_for(media_type)
    if writer is not None and not writer.extends_files and result.num_bytes <= SMALL_ANSWER_BYTES:
        content = writer.encode(result, Path(os.devnull))
        if content is not None:
            return content
    return await model.parsers.encode(result, media_type, upload)


class SpooledResponse(FileResponse):
    """A response that sends a file and then calls ``release``, even if sending fails. ``name``: what it is saved by."""

    def __init__(
        self, path: Path, release: Callable[[], None], headers: Mapping[str, str], *, media_type: str, name: str
    ) -> None:
        super().__init__(path, headers=headers, media_type=media_type, filename=name)
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.to_thread(self._release)


def _note_in_short(note: Mapping[str, object]) -> str:
    """How cells were read, as JSON that is short enough for a header; the list of unmatched genes is left out."""
    coverage, warnings = note.get("coverage"), note.get("warnings")
    if isinstance(coverage, Mapping):
        coverage = {name: value for name, value in coverage.items() if name != "unmatched"}
    short = {name: note.get(name) for name in ("model", "release", "checksum", "input")} | {"coverage": coverage}
    text = json.dumps({**short, "warnings": warnings})
    return text if len(text) <= _LONGEST_HEADER else json.dumps({"warnings": ["too long for a header: request JSON"]})


def result_headers(media_type: str, result: Result) -> dict[str, str]:
    """Headers that say how the cells were read, if the format is not JSON."""
    return {} if media_type == "application/json" else {"Scpalm-Note": _note_in_short(result.note)}


def respond(content: bytes | Path, media_type: str, durations: Mapping[str, float], result: Result) -> Response:
    """The response to ``result``, with its timing and, if it is not JSON, how the cells were read in the headers."""
    headers = {"Server-Timing": server_timing(durations), **result_headers(media_type, result)}
    if isinstance(content, Path):
        key = result.outputs[0].spec.key
        filename = f"{key}{content.suffix}"
        remove = partial(content.unlink, missing_ok=True)
        return SpooledResponse(content, remove, headers, media_type=media_type, name=filename)
    return Response(content, headers=headers, media_type=media_type)


def server_timing(durations: Mapping[str, float]) -> str:
    """The header ``Server-Timing`` for durations in seconds."""
    return ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in durations.items())
