"""A request's way, in one direction: body -> parser -> transport -> device -> encoder -> answer, part by part."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from scpalm.app.codecs.compression import check_encoding
from scpalm.app.codecs.registry import CODECS, READABLE, Answer, Codec, Part, codec_for, writer_for
from scpalm.app.errors import ServiceError, UnsupportedMediaTypeError
from scpalm.app.execution.computation import Computation, TaskPlan
from scpalm.app.http.body import FORM, Body, content_encoding_of, discard_body, media_type_of, read_body
from scpalm.app.http.dependencies import charge_cells
from scpalm.app.http.disconnect import unless_disconnected
from scpalm.app.http.negotiation import choose_media_type
from scpalm.app.parsing.pool import Opened
from scpalm.app.parsing.upload import Upload
from scpalm.app.serving.model import Model
from scpalm.app.serving.service import Service
from scpalm.app.storage.scratch import scratch_folder
from scpalm.app.tasks.task import told_of
from scpalm.model.genes.normalize import Declared

# What a form's file is, whatever type its part claims: browsers and curl know no type for .h5ad.
FORM_CODEC_TYPE = "application/x-hdf5"
# Writing such an answer takes less time than handing it to another process, too little for others to notice.
SMALL_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class Options:
    """What a request asks for beside its cells.

    Attributes:
        plan: what to compute, once the upload's genes are known. layer, declared, extras: see `Upload`.
        model, version: whose results; None: the default model's, whatever its version.
        quick: whether the plan takes no time worth a turn of a thread.
        reads: the media type of the body, whatever its header says, where the route takes one alone.
        header_bytes: see `Upload`. present: makes the response of such a route.
    """

    plan: TaskPlan
    layer: str | None
    declared: Declared
    extras: tuple[str, ...] = ()
    model: str | None = None
    version: str = ""
    quick: bool = False
    reads: str | None = None
    header_bytes: int | None = None
    present: Callable[[Answer, Opened], Awaitable[Response]] | None = None


async def answer_cells(request: Request, service: Service, options: Options) -> Response:
    """Compute what ``options.plan`` says for the cells in the body. Raises ServiceError and InputError."""
    settings = service.settings
    try:
        model = service.ready_model(options.model, options.version)
        codec, media_type = negotiate(request) if options.reads is None else _only(options.reads, request)
    except ServiceError:
        await discard_body(request, idle_seconds=settings.body_idle_seconds)
        raise
    with (
        model.held(),
        ExitStack() as until_parsed,
        scratch_folder(settings.spool_dir) as folder,
    ):
        until_parsed.enter_context(service.upload_slot())
        body = await receive(request, service, folder)
        return await unless_disconnected(
            request, _answer(request, service, model, options, body, codec, media_type, until_parsed.close)
        )


async def receive(request: Request, service: Service, folder: Path) -> Body:
    """The body, within the service's limits; large ones as a file in ``folder``."""
    settings = service.settings
    return await read_body(
        request,
        folder,
        max_bytes=settings.max_body_bytes,
        idle_seconds=settings.body_idle_seconds,
        form_type=FORM_CODEC_TYPE,
    )


def upload_of(service: Service, options: Options, body: Body, codec: Codec) -> Upload:
    """The body on its way to a parser, with what the request and the settings say about it."""
    return Upload(
        body.path if body.path is not None else (body.data or b""),
        codec.media_type,
        body.content_encoding,
        options.layer,
        options.declared,
        service.settings.max_cells,
        service.settings.max_body_bytes,
        body.fields,
        options.extras,
        options.header_bytes,
    )


async def _answer(
    request: Request,
    service: Service,
    model: Model,
    options: Options,
    body: Body,
    codec: Codec,
    media_type: str,
    on_parsed: Callable[[], None],
) -> Response:
    upload = upload_of(service, options, body, codec)
    started = time.monotonic()
    async with aclosing(model.parsers.parse(upload)) as parts:
        opened = await anext(parts)
        assert isinstance(opened, Opened)
        ratio = opened.coverage.genes_matched / max(1, opened.coverage.genes_in)
        service.metrics.genes_matched_ratio.observe(ratio)
        if options.quick:
            tasks = options.plan(model, opened, media_type)
        else:  # in a thread: reading hundreds of SMILES takes longer than others should wait
            tasks = await asyncio.to_thread(options.plan, model, opened, media_type)
        with scratch_folder(service.settings.spool_dir) as folder:
            computation = Computation(model, tasks, opened.num_cells, folder)
            async with computation:
                await charge_cells(request, opened.num_cells)
                async for part in parts:
                    assert not isinstance(part, Opened)
                    await computation.add(part)
                parsed = time.monotonic()
                on_parsed()
                service.metrics.parse_duration.labels(codec.name).observe(parsed - started)
                results = await computation.results()
            encoding = time.monotonic()
            answer = Answer(
                model.bundle.name,
                model.bundle.version,
                results.cells,
                [
                    Part(task.name, task.key, results.values[task.name], task.columns, task.place, task.var_columns)
                    for task in tasks
                ],
                opened.coverage,
                results.input,
                told_of(tasks),
            )
            response: Response | None = None
            content: bytes | Path = b""
            if options.present is not None:
                response = await options.present(answer, opened)
            else:
                content = await encode(model, answer, media_type, upload)
    written = time.monotonic()
    if service.tracing is not None:
        on_device = results.started + results.queue_seconds
        service.tracing.stages(
            [
                ("parse", started, parsed),
                ("queue", results.started, on_device),
                ("device", on_device, on_device + results.inference_seconds),
                ("write", encoding, written),
            ],
            cells=opened.num_cells,
        )
    timings = {
        "parse": parsed - started,
        "queue": results.queue_seconds,
        "inference": results.inference_seconds,
        "encode": written - encoding,
    }
    return response or respond(content, media_type, timings, answer.parts[0].key)


async def encode(model: Model, answer: Answer, media_type: str, upload: Upload | None) -> bytes | Path:
    """The answer as bytes or as a file that `respond` removes; small ones here, others by a parser's process."""
    codec = writer_for(media_type)
    size = sum(part.nbytes for part in answer.parts)
    if codec is not None and not codec.reads_files and size <= SMALL_ANSWER_BYTES:
        content = codec.encode(answer, Path(os.devnull))
        if content is not None:
            return content
    return await model.parsers.encode(answer, media_type, upload)


class _SpooledResponse(FileResponse):
    """A file that is removed when it was sent, or could not be."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.to_thread(Path(self.path).unlink, missing_ok=True)


def respond(content: bytes | Path, media_type: str, timings: dict[str, float], key: str) -> Response:
    """The answer, with its ``Server-Timing``."""
    headers = {"Server-Timing": ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in timings.items())}
    if isinstance(content, Path):
        return _SpooledResponse(content, headers=headers, media_type=media_type, filename=f"{key}{content.suffix}")
    return Response(content, headers=headers, media_type=media_type)


def negotiate(request: Request) -> tuple[Codec, str]:
    """The codec of the body, and the media type of the answer. Raises ServiceError (406, 415)."""
    codec = _codec_of(request)
    check_encoding(content_encoding_of(request))
    offers = [codec.media_type, *(other.media_type for other in CODECS if other is not codec)]
    return codec, choose_media_type(request.headers.get("accept"), offers)


def _only(media_type: str, request: Request) -> tuple[Codec, str]:
    """The codec of a route that takes one kind of body. Raises ServiceError (415)."""
    codec = codec_for(media_type)
    assert codec is not None
    if media_type_of(request) == FORM:
        raise UnsupportedMediaTypeError("This route takes no form. Send JSON.", field="Content-Type")
    check_encoding(content_encoding_of(request))
    return codec, media_type


def _codec_of(request: Request) -> Codec:
    media_type = media_type_of(request)
    codec = codec_for(FORM_CODEC_TYPE if media_type == FORM else media_type)
    if codec is None or codec.media_type not in READABLE:
        sent = f"'{media_type[:100]}'" if media_type else "A body without Content-Type"
        raise UnsupportedMediaTypeError(
            f"{sent} is not understood. Send one of: {', '.join(_readable_types())}.", field="Content-Type"
        )
    return codec


def _readable_types() -> Sequence[str]:
    return [*READABLE, FORM]
