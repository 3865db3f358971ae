"""Request bodies: read as a stream, bounded while reading, kept on disk when large."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from fastapi import Request
from starlette.requests import ClientDisconnect

from scpalm.app.errors import BadRequestError, BodyTimeoutError, ClientGoneError, StorageFullError, TooLargeError
from scpalm.app.http.form import Form
from scpalm.app.storage.scratch import made

FORM = "multipart/form-data"
# Up to this size a body stays in memory; beyond it, it is written to the spool directory as it comes in.
IN_MEMORY_BYTES = 1 << 20
# A refused body is read on and thrown away up to here: most clients listen only after they have sent everything.
DISCARD_BYTES = 64 << 20
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Body:
    """The cells' bytes.

    Attributes:
        media_type: of the cells, lower case, without parameters; of the file's part where the body was a form.
        content_encoding: as sent, lower case; "" for none.
        data, path: the bytes in memory, or the file that holds them; one of the two.
        fields: further text fields of a form.
    """

    media_type: str
    content_encoding: str
    data: bytes | None
    path: Path | None
    fields: dict[str, str]


def media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def content_encoding_of(request: Request) -> str:
    """As sent, lower case; "" for none."""
    encoding = request.headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding.removeprefix("x-")


async def read_body(request: Request, directory: Path, *, max_bytes: int, idle_seconds: float, form_type: str) -> Body:
    """Read the whole body; large ones go to a file in ``directory``. ``form_type`` is the media type of a form's file.

    Raises TooLargeError over ``max_bytes``, BodyTimeoutError when nothing comes for ``idle_seconds``, BadRequestError
    for a broken form, StorageFullError when ``directory`` has no room.
    """
    try:
        return await _read(request, directory, max_bytes, idle_seconds, form_type)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        await discard_body(request, idle_seconds=idle_seconds)
        raise StorageFullError(
            "The disk that keeps uploads is full (SCPALM_SPOOL_DIR). Try again later, or with fewer cells.",
            retry_after=10,
        ) from error


async def _read(request: Request, directory: Path, max_bytes: int, idle_seconds: float, form_type: str) -> Body:
    media_type = media_type_of(request)
    encoding = content_encoding_of(request)
    stream = _bounded(request, max_bytes, idle_seconds)
    if media_type != FORM:
        return await _read_plain(stream, directory, media_type, encoding)
    if encoding:
        raise BadRequestError(
            "A form with Content-Encoding is not read. Send the bytes as the body itself.", field="Content-Encoding"
        )
    return await _read_form(request, stream, directory, form_type)


async def discard_body(request: Request, *, idle_seconds: float) -> None:
    """Read a body that is refused, so that its client gets to see the answer; not if it asked first, nor a huge one."""
    declared = request.headers.get("content-length", "")
    if _asks_first(request) or (declared.isdigit() and int(declared) > DISCARD_BYTES):
        return
    size = 0
    try:
        async for chunk in _chunks(request, idle_seconds):
            size += len(chunk)
            if size > DISCARD_BYTES:
                return
    except (ClientDisconnect, BodyTimeoutError):
        return


def _asks_first(request: Request) -> bool:
    return request.headers.get("expect", "").lower() == "100-continue"


async def _chunks(request: Request, idle_seconds: float) -> AsyncIterator[bytes]:
    stream = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(idle_seconds):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise BodyTimeoutError(
                f"Nothing of the body came for {idle_seconds:g} s (SCPALM_BODY_IDLE_SECONDS). Send it again, whole."
            ) from None
        yield chunk


async def _bounded(request: Request, max_bytes: int, idle_seconds: float) -> AsyncIterator[bytes]:
    declared = request.headers.get("content-length", "")
    size = 0
    too_large = declared.isdigit() and int(declared) > max_bytes
    if too_large and (_asks_first(request) or int(declared) > max_bytes + DISCARD_BYTES):
        raise _over(max_bytes)
    try:
        async for chunk in _chunks(request, idle_seconds):
            size += len(chunk)
            if size > max_bytes + DISCARD_BYTES:
                raise _over(max_bytes)
            if size <= max_bytes and not too_large:
                yield chunk
    except ClientDisconnect:
        raise ClientGoneError("The client closed the connection before its body was read.") from None
    if size > max_bytes or too_large:
        raise _over(max_bytes)


def _over(max_bytes: int) -> TooLargeError:
    return TooLargeError(
        f"The body is over {max_bytes} bytes (SCPALM_MAX_BODY_BYTES). "
        "Send fewer cells at a time, or use `scpalm embed` on the file."
    )


async def _read_plain(stream: AsyncIterator[bytes], directory: Path, media_type: str, encoding: str) -> Body:
    chunks: list[bytes] = []
    size = 0
    async for chunk in stream:
        chunks.append(chunk)
        size += len(chunk)
        if size > IN_MEMORY_BYTES:
            break
    else:
        return Body(media_type, encoding, b"".join(chunks), None, {})
    with tempfile.NamedTemporaryFile(dir=made(directory), prefix="body-", delete=False) as file:
        for chunk in chunks:
            file.write(chunk)
        chunks.clear()
        async for chunk in stream:
            file.write(chunk)
    return Body(media_type, encoding, None, Path(file.name), {})


async def _read_form(request: Request, stream: AsyncIterator[bytes], directory: Path, form_type: str) -> Body:
    form = Form(request.headers["content-type"], directory)
    try:
        async for chunk in stream:
            form.write(chunk)
        path, fields = form.finish()
    finally:
        form.close()
    return Body(form_type, "", None, path, fields)
