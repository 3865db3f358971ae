"""Read request bodies as a stream, enforce limits while reading, and keep large bodies on disk."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from fastapi import Request
from starlette.requests import ClientDisconnect

from scpalm.app.background import completed
from scpalm.app.codecs.codec import Reader
from scpalm.app.codecs.signature import FORM, H5AD, boundary_of, content_of
from scpalm.app.errors import (
    BadRequestError,
    BodyTimeoutError,
    ClientGoneError,
    InvalidParameterError,
    StorageFullError,
    TooLargeError,
)
from scpalm.app.http.form import FILE_FIELD, Form
from scpalm.app.http.negotiation import content_encoding_of, media_type_of
from scpalm.app.parsing.upload import Upload
from scpalm.app.serving.labelled import labelled_upload
from scpalm.app.serving.limits import BodyLimits
from scpalm.app.storage.scratch import NO_ROOM, ensure_folder
from scpalm.model.errors import ParameterError
from scpalm.model.spec import RequestSpec
from scpalm.model.tasks.common_options import LABELLED_FILE

HEADER_LENGTH = "Inference-Header-Content-Length"
# Larger bodies are written to a file while they arrive.
IN_MEMORY_BYTES = 1 << 20
# Smaller writes take less time than handing them to a thread.
_SMALL_BYTES = 64 << 10
# A refused body is read and discarded up to this size, because most clients read the response only after sending.
DISCARD_BYTES = 64 << 20


async def read_upload(request: Request, folder: Path, reader: Reader, spec: RequestSpec, limits: BodyLimits) -> Upload:
    """Read the whole body into memory, or into a file in ``folder`` if it is large.

    Raises:
        TooLargeError: the body exceeds ``limits.max_bytes``.
        BodyTimeoutError: the body arrives too slowly for ``limits``.
        BadRequestError: the form is malformed.
        StorageFullError: the disk of ``folder`` is full.
    """
    try:
        return await _read(request, folder, reader, spec, limits)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        await discard_body(request, limits)
        raise StorageFullError(
            "The disk for uploads (SCPALM_SPOOL_DIR) is full. Try again later, or send fewer cells.",
            retry_after=10,
        ) from error


async def _read(request: Request, folder: Path, reader: Reader, spec: RequestSpec, limits: BodyLimits) -> Upload:
    encoding = content_encoding_of(request)
    stream = _bounded(request, limits)
    if media_type_of(request) != FORM:
        body = await _read_plain(stream, folder)
        if reader.hidden:
            return Upload(body, reader.media_types[0], spec, encoding, header_bytes=_header_bytes(request))
        found, encoding = await asyncio.to_thread(content_of, body, encoding)
        if found != FORM:
            return Upload(body, found or reader.media_types[0], spec, encoding)
        stream = _chunks_of(body)
        content_type = f"{FORM}; boundary={boundary_of(body)}"
    else:
        content_type = request.headers["content-type"]
    if encoding:
        raise BadRequestError(
            "Forms with Content-Encoding are not supported. Send the file itself as the body.", field="Content-Encoding"
        )
    form = Form(content_type, folder, lambda name: spec.check_name(name, "form field"), spec.files)
    try:
        async for block in _blocks(stream):
            await _off_loop(block, form.write)
        paths, fields = form.finish()
    except (BadRequestError, ParameterError):
        await _skip_rest(request, stream)
        raise
    finally:
        form.close()
    spec = spec.with_options(fields, "form field")
    media_type, encoding = await _type_of(paths[FILE_FIELD])
    labelled = await _labelled(paths[LABELLED_FILE], spec) if LABELLED_FILE in paths else None
    return Upload(paths[FILE_FIELD], media_type, spec, encoding, labelled=labelled)


async def _type_of(path: Path) -> tuple[str, str]:
    """Media type and content encoding of the content of a file."""
    found, encoding = await asyncio.to_thread(content_of, path, "")
    return found if found not in (None, FORM) else H5AD, encoding


async def _labelled(path: Path, spec: RequestSpec) -> Upload:
    """The file of labelled cells of a form. Raises ParameterError if no task reads it."""
    how = spec.labelled_by
    if how is None:
        raise ParameterError(
            f"The form has a file '{LABELLED_FILE}', which no requested task reads. Leave it out, or add "
            "also=annotate.",
            field=LABELLED_FILE,
        )
    media_type, encoding = await _type_of(path)
    return labelled_upload(path, media_type, encoding, how)


async def _chunks_of(body: bytes | Path) -> AsyncIterator[bytes]:
    """A body that was read already, as chunks."""
    if isinstance(body, bytes):
        yield body
        return
    with body.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, IN_MEMORY_BYTES):
            yield chunk


def _header_bytes(request: Request) -> int | None:
    """Length of the JSON part of a body with binary tensors after it. Raises InvalidParameterError."""
    text = request.headers.get(HEADER_LENGTH)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 16):
        raise InvalidParameterError(f"'{text[:50]}' is not a number of bytes.", field=HEADER_LENGTH)
    return int(text)


def memory_of(request: Request) -> int:
    """The most memory that the body of a request takes; larger bodies are files."""
    declared = request.headers.get("content-length", "")
    return min(int(declared), IN_MEMORY_BYTES) if declared.isdigit() else IN_MEMORY_BYTES


async def discard_body(request: Request, limits: BodyLimits) -> None:
    """Read a refused body to its end, so that the client sees the response.

    Does nothing for huge bodies, or if the client sent ``Expect`` and so waits for the response anyway.
    """
    declared = request.headers.get("content-length", "")
    if _expects_continue(request) or (declared.isdigit() and int(declared) > DISCARD_BYTES):
        return
    size = 0
    try:
        async for chunk in _chunks(request, limits):
            size += len(chunk)
            if size > DISCARD_BYTES:
                return
    except (ClientDisconnect, BodyTimeoutError):
        return


async def _skip_rest(request: Request, stream: AsyncIterator[bytes]) -> None:
    """Like `discard_body`, for a body that was read in part."""
    declared, size = request.headers.get("content-length", ""), 0
    if declared.isdigit() and int(declared) > DISCARD_BYTES:
        return
    try:
        async for chunk in stream:
            size += len(chunk)
            if size > DISCARD_BYTES:
                return
    except (BodyTimeoutError, ClientGoneError, TooLargeError):
        return


def _expects_continue(request: Request) -> bool:
    return request.headers.get("expect", "").lower() == "100-continue"


async def _chunks(request: Request, limits: BodyLimits) -> AsyncIterator[bytes]:
    """The chunks of a body. Raises BodyTimeoutError for a client that sends too slowly.

    Only the time in which the client is waited for counts, not that in which the service writes.
    """
    stream = aiter(request.stream())
    loop = asyncio.get_running_loop()
    waited, size = 0.0, 0
    while True:
        started = loop.time()
        try:
            async with asyncio.timeout(min(limits.idle_seconds, limits.max_seconds - waited)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise _too_slow(limits, waited + loop.time() - started, size) from None
        waited += loop.time() - started
        size += len(chunk)
        # The whole time counts: a client cannot save up the right to pause.
        if waited > limits.idle_seconds and size < limits.min_bytes_per_second * waited:
            raise _too_slow(limits, waited, size)
        yield chunk


def _too_slow(limits: BodyLimits, waited: float, size: int) -> BodyTimeoutError:
    if waited >= limits.max_seconds:
        reason = f"The body did not arrive within {limits.max_seconds:g} s (SCPALM_BODY_SECONDS)."
    elif waited > limits.idle_seconds and size < limits.min_bytes_per_second * waited:
        reason = (
            f"Only {size} bytes of the body arrived in {waited:.0f} s, fewer than {limits.min_bytes_per_second:g} per "
            "second (SCPALM_BODY_MIN_BYTES_PER_SECOND)."
        )
    else:
        reason = f"No bytes of the body arrived for {limits.idle_seconds:g} s (SCPALM_BODY_IDLE_SECONDS)."
    return BodyTimeoutError(f"{reason} Please send it again, faster or compressed.")


async def _bounded(request: Request, limits: BodyLimits) -> AsyncIterator[bytes]:
    max_bytes = limits.max_bytes
    declared = request.headers.get("content-length", "")
    size = 0
    too_large = declared.isdigit() and int(declared) > max_bytes
    if too_large and (_expects_continue(request) or int(declared) > max_bytes + DISCARD_BYTES):
        raise _too_large(max_bytes)
    try:
        async for chunk in _chunks(request, limits):
            size += len(chunk)
            if size > max_bytes + DISCARD_BYTES:
                raise _too_large(max_bytes)
            if size <= max_bytes and not too_large:
                yield chunk
    except ClientDisconnect:
        raise ClientGoneError("The client closed the connection before its body was read.") from None
    if size > max_bytes or too_large:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The body is larger than {max_bytes} bytes (SCPALM_MAX_BODY_BYTES). "
        "Send fewer cells per request, or run `scpalm embed` on the file."
    )


async def _read_plain(stream: AsyncIterator[bytes], folder: Path) -> bytes | Path:
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > IN_MEMORY_BYTES:
            break
    else:
        return b"".join(chunks)
    with tempfile.NamedTemporaryFile(dir=ensure_folder(folder), prefix="body-", delete=False) as file:
        await _off_loop(b"".join(chunks), file.write)
        chunks.clear()
        async for block in _blocks(stream):
            await _off_loop(block, file.write)
    return Path(file.name)


async def _blocks(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in few blocks, because each one is written in a thread."""
    block = bytearray()
    async for chunk in stream:
        block += chunk
        if len(block) >= IN_MEMORY_BYTES:
            yield bytes(block)
            block.clear()
    if block:
        yield bytes(block)


async def _off_loop(block: bytes, write: Callable[[bytes], object]) -> None:
    """Write a block where a slow disk cannot stop the event loop."""
    if len(block) <= _SMALL_BYTES:
        write(block)
        return
    # To its end even if the client leaves: the file is closed and removed afterwards.
    await completed(asyncio.to_thread(write, block))
