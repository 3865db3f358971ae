from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.requests import Request

from scpalm.app.codecs.sparse_json import SparseJsonCodec
from scpalm.app.errors import BodyTimeoutError, StorageFullError
from scpalm.app.http.body import IN_MEMORY_BYTES, discard_body, read_upload
from scpalm.app.http.form import Form
from scpalm.app.parsing.upload import Upload
from scpalm.app.serving.limits import BodyLimits
from scpalm.model.errors import ParameterError
from scpalm.model.spec import RequestSpec
from tests.loop_lag import LoopLag

FORM_TYPE = "multipart/form-data; boundary=b"


def request_of(chunks: Iterator[bytes], *, stalls: bool, content_type: str = "application/json") -> Request:
    """A request whose body ends after the chunks, or stalls."""

    async def receive() -> dict[str, object]:
        chunk = next(chunks, None)
        if chunk is None and stalls:
            await asyncio.sleep(60)
        return {"type": "http.request", "body": chunk or b"", "more_body": chunk is not None}

    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", content_type.encode())]}
    return Request(scope, receive)


def read(request: Request, folder: Path, idle_seconds: float = 30.0) -> Upload:
    limits = BodyLimits(1 << 30, idle_seconds, folder)
    return asyncio.run(read_upload(request, folder, SparseJsonCodec(), RequestSpec(("embed",)), limits))


@pytest.mark.parametrize("size", [10, IN_MEMORY_BYTES + 10])
@pytest.mark.parametrize("content_type", ["application/json", FORM_TYPE])
def test_a_stalled_body_times_out(tmp_path: Path, size: int, content_type: str) -> None:
    first = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + b"x" * size
    with pytest.raises(BodyTimeoutError, match="SCPALM_BODY_IDLE_SECONDS"):
        read(request_of(iter([first]), stalls=True, content_type=content_type), tmp_path, idle_seconds=0.05)


def test_a_refused_body_that_stalls_times_out() -> None:
    started = time.monotonic()
    asyncio.run(discard_body(request_of(iter([b"x"]), stalls=True), BodyLimits(1, 0.05, Path())))
    assert time.monotonic() - started < 30


async def trickle(request_seconds: float) -> dict[str, object]:
    await asyncio.sleep(request_seconds)
    return {"type": "http.request", "body": b"x", "more_body": True}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"idle_seconds": 0.2, "min_bytes_per_second": 10_000}, "SCPALM_BODY_MIN_BYTES_PER_SECOND"),
        ({"idle_seconds": 30.0, "max_seconds": 0.2}, "SCPALM_BODY_SECONDS"),
    ],
)
@pytest.mark.parametrize("refused", [True, False])
def test_a_body_that_trickles_without_end_times_out(
    tmp_path: Path, limits: dict[str, float], words: str, refused: bool
) -> None:
    """An occasional byte does not keep a slot, and neither does a body that was refused."""
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", b"application/json")]}
    request = Request(scope, lambda: trickle(0.02))
    bounds = BodyLimits(1 << 30, spool_dir=tmp_path, **limits)
    if refused:
        asyncio.run(asyncio.wait_for(discard_body(request, bounds), 30))
        return
    reading = read_upload(request, tmp_path, SparseJsonCodec(), RequestSpec(("embed",)), bounds)
    with pytest.raises(BodyTimeoutError, match=words):
        asyncio.run(asyncio.wait_for(reading, 30))


def test_a_slow_but_steady_body_is_read(tmp_path: Path) -> None:
    def slowly() -> Iterator[bytes]:
        for _ in range(5):
            time.sleep(0.1)
            yield b"x"

    assert read(request_of(slowly(), stalls=False), tmp_path, idle_seconds=0.3).body == b"xxxxx"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("content_type", ["application/json", FORM_TYPE])
def test_a_full_disk_is_reported_after_the_rest_was_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, content_type: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.NamedTemporaryFile", full)
    monkeypatch.setattr(Form, "write", full)
    chunks = iter([b"x" * (IN_MEMORY_BYTES + 1), b"more", b"and more"])
    with pytest.raises(StorageFullError, match="SCPALM_SPOOL_DIR") as caught:
        read(request_of(chunks, stalls=False, content_type=content_type), tmp_path)
    assert caught.value.status == 507 and caught.value.retry_after
    assert next(chunks, None) is None


def test_other_disk_errors_are_not_reported_as_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr("tempfile.NamedTemporaryFile", broken)
    with pytest.raises(OSError, match="broken"):
        read(request_of(iter([b"x" * (IN_MEMORY_BYTES + 1)]), stalls=False), tmp_path)


@pytest.mark.parametrize("field", [b"lost", b"more"])
def test_a_refused_form_is_read_to_its_end_and_keeps_nothing(tmp_path: Path, field: bytes) -> None:
    def part(number: int) -> bytes:
        return b'--b\r\nContent-Disposition: form-data; name="%b%d"\r\n\r\n%b\r\n' % (
            field,
            number,
            b"x" * IN_MEMORY_BYTES,
        )

    chunks = iter([part(number) for number in range(30)])
    with pytest.raises(ParameterError, match="There is no form field"):
        read(request_of(chunks, stalls=False, content_type=FORM_TYPE), tmp_path)
    assert next(chunks, None) is None


class _SlowFile:
    """A file on a disk that takes its time."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._file = path.open("wb")

    def __enter__(self) -> _SlowFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: bytes) -> None:
        time.sleep(0.3)
        self._file.write(content)


@pytest.mark.parametrize("content_type", ["application/json", FORM_TYPE])
def test_a_slow_disk_does_not_stop_the_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content_type: str) -> None:
    monkeypatch.setattr("tempfile.NamedTemporaryFile", lambda **_: _SlowFile(tmp_path / "body"))
    written = bytearray()

    def write(form: Form, content: bytes) -> None:
        time.sleep(0.3)
        written.extend(content)

    (tmp_path / "body").touch()
    monkeypatch.setattr(Form, "write", write)
    monkeypatch.setattr(Form, "finish", lambda form: ({"file": tmp_path / "body"}, {}))
    chunks = [bytes([number]) * (IN_MEMORY_BYTES // 4) for number in range(12)]

    async def watched() -> Upload:
        with LoopLag(asyncio.get_running_loop()):
            request = request_of(iter(chunks), stalls=False, content_type=content_type)
            limits = BodyLimits(1 << 30, 30.0, tmp_path)
            return await read_upload(request, tmp_path, SparseJsonCodec(), RequestSpec(("embed",)), limits)

    body = asyncio.run(watched()).body
    assert isinstance(body, Path)
    assert (bytes(written) if content_type == FORM_TYPE else body.read_bytes()) == b"".join(chunks)
