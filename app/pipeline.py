"""A request's way, in one direction: body -> parser -> transport -> device -> encoder -> answer."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request, Response
from fastapi.responses import FileResponse
from starlette.types import Receive, Scope, Send

from app.body import FORM, Body, content_encoding_of, discard_body, media_type_of, read_body
from app.codecs import CODECS, Answer, Codec, codec_for
from app.codecs.compression import check_encoding
from app.disconnect import unless_disconnected
from app.errors import InferenceError, ServiceError, UnsupportedMediaTypeError
from app.negotiation import choose_media_type
from app.service import Service
from app.transport import Outcome, Work
from app.upload import Upload
from model.normalize import Declared
from model.prepare import Prepared
from model.sessions import Task

# What a form's file is, whatever type its part claims: browsers and curl know no type for .h5ad.
FORM_CODEC_TYPE = "application/x-hdf5"
# Writing such an answer takes less time than handing it to another process, too little for others to notice.
SMALL_ANSWER_BYTES = 64 << 10


@dataclass(frozen=True)
class Options:
    """What a request asks for beside its cells.

    Attributes:
        task: what to compute. layer, declared: see `Upload`. key: where an h5ad answer keeps the values, in ``obsm``.
    """

    task: Task
    layer: str | None
    declared: Declared
    key: str


async def answer_cells(request: Request, service: Service, options: Options) -> Response:
    """Compute ``options.task`` for the cells in the body. Raises ServiceError and InputError."""
    settings = service.settings
    try:
        service.check_ready()
        codec, media_type = _negotiate(request)
    except ServiceError:
        await discard_body(request, idle_seconds=settings.body_idle_seconds)
        raise
    with (
        ExitStack() as until_parsed,
        tempfile.TemporaryDirectory(prefix="scpalm-", dir=settings.spool_dir, ignore_cleanup_errors=True) as folder,
    ):
        until_parsed.enter_context(service.upload_slot())
        body = await read_body(
            request,
            Path(folder),
            max_bytes=settings.max_body_bytes,
            idle_seconds=settings.body_idle_seconds,
            form_type=FORM_CODEC_TYPE,
        )
        return await unless_disconnected(
            request, _answer(service, options, body, codec, media_type, until_parsed.close)
        )


async def _answer(
    service: Service, options: Options, body: Body, codec: Codec, media_type: str, on_parsed: Callable[[], None]
) -> Response:
    upload = Upload(
        body.path if body.path is not None else (body.data or b""),
        codec.media_type,
        body.content_encoding,
        options.layer,
        options.declared,
        service.settings.max_cells,
        service.settings.max_body_bytes,
    )
    started = time.monotonic()
    prepared = await service.parsers.parse(upload)
    parsed = time.monotonic()
    on_parsed()
    service.metrics.parse_duration.labels(codec.name).observe(parsed - started)
    service.metrics.genes_matched_ratio.observe(prepared.coverage.genes_matched / max(1, prepared.coverage.genes_in))

    outcome = await _infer(service, options.task, prepared)
    encoding = time.monotonic()
    content = await _encode(service, options, prepared, outcome, upload, media_type)
    timings = {
        "parse": parsed - started,
        "queue": outcome.queue_seconds,
        "inference": outcome.inference_seconds,
        "encode": time.monotonic() - encoding,
    }
    return _respond(content, media_type, timings, options.key)


async def _infer(service: Service, task: Task, prepared: Prepared) -> Outcome:
    lane = service.lane_of(len(prepared.rows))
    work = Work(task, prepared.rows, lane)
    service.transport.submit(work)
    outcome = await service.transport.reply(work.id)
    if outcome.error is not None:
        raise outcome.error
    return outcome


async def _encode(
    service: Service, options: Options, prepared: Prepared, outcome: Outcome, upload: Upload, media_type: str
) -> bytes | Path:
    if outcome.values is None:
        raise InferenceError("The model gave neither values nor an error.")
    answer = Answer(
        service.bundle.name,
        service.bundle.version,
        prepared.cells,
        outcome.values,
        prepared.coverage,
        prepared.input,
        options.key,
    )
    codec = codec_for(media_type)
    if codec is not None and not codec.reads_files and answer.values.nbytes <= SMALL_ANSWER_BYTES:
        content = codec.encode(answer, Path(os.devnull))
        if content is not None:
            return content
    return await service.parsers.encode(answer, media_type, upload)


class _SpooledResponse(FileResponse):
    """A file that is removed when it was sent, or could not be."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.to_thread(Path(self.path).unlink, missing_ok=True)


def _respond(content: bytes | Path, media_type: str, timings: dict[str, float], key: str) -> Response:
    headers = {"Server-Timing": ", ".join(f"{name};dur={1000 * seconds:.2f}" for name, seconds in timings.items())}
    if isinstance(content, Path):
        return _SpooledResponse(content, headers=headers, media_type=media_type, filename=f"{key}{content.suffix}")
    return Response(content, headers=headers, media_type=media_type)


def _negotiate(request: Request) -> tuple[Codec, str]:
    """The codec of the body, and the media type of the answer."""
    codec = _codec_of(request)
    check_encoding(content_encoding_of(request))
    offers = [codec.media_type, *(other.media_type for other in CODECS if other is not codec)]
    return codec, choose_media_type(request.headers.get("accept"), offers)


def _codec_of(request: Request) -> Codec:
    media_type = media_type_of(request)
    codec = codec_for(FORM_CODEC_TYPE if media_type == FORM else media_type)
    if codec is None:
        sent = f"'{media_type[:100]}'" if media_type else "A body without Content-Type"
        raise UnsupportedMediaTypeError(
            f"{sent} is not understood. Send one of: {', '.join(_readable_types())}.", field="Content-Type"
        )
    return codec


def _readable_types() -> Sequence[str]:
    return [*(codec.media_type for codec in CODECS), FORM]
