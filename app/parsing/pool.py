"""Uploads become rows, and answers become bytes, in child processes with limits: a crash there is a 400 here."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from scpalm.app.codecs.compression import check_encoding
from scpalm.app.codecs.registry import READABLE, Answer, codec_for, writer_for
from scpalm.app.errors import TooLargeError, UnsupportedMediaTypeError
from scpalm.app.parsing import child as parser_process
from scpalm.app.parsing.child import Opened
from scpalm.app.parsing.sandbox import Limits, Sandbox, SandboxError
from scpalm.app.parsing.upload import Upload
from scpalm.model.errors import InputError, UnreadableError
from scpalm.model.genes.prepare import Prepared

__all__ = ["Opened", "ParserPool", "Upload"]

log = logging.getLogger("scpalm.parsing")

T = TypeVar("T")

LARGE_BYTES = 8 << 20  # bodies over this leave one process free for small ones


class ParserPool:
    """Processes that parse and encode; `start` them, then `parse` and `encode` from the event loop.

    Args:
        genes: the bundle's ``genes.parquet``, loaded once by each process.
        processes: how many.
        seconds: longest time for one upload, wall clock and CPU.
        memory_bytes: most memory for one upload; default: 8 GiB, or half of the machine's.
        directory: where files are kept meanwhile; default: the system's.
    """

    def __init__(
        self,
        genes: Path,
        *,
        processes: int = 2,
        seconds: float = 120.0,
        memory_bytes: int | None = None,
        directory: Path | None = None,
    ) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="scpalm-", dir=directory))
        limits = Limits(memory_bytes or _bearable_memory(), seconds)
        self._sandboxes = [Sandbox(parser_process.load_vocabulary, (genes,), limits) for _ in range(processes)]
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="parser")
        self._free: asyncio.LifoQueue[Sandbox] = asyncio.LifoQueue()
        for sandbox in self._sandboxes:
            self._free.put_nowait(sandbox)
        self._large = asyncio.Semaphore(max(1, processes - 1))

    @property
    def pids(self) -> list[int]:
        """Process ids, for monitoring."""
        return [sandbox.pid for sandbox in self._sandboxes]

    async def start(self) -> None:
        """Wait until every process is ready. Raises BundleError when the genes cannot be loaded."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._threads, s.set_up) for s in self._sandboxes))

    def close(self) -> None:
        """End the processes and remove their files."""
        for sandbox in self._sandboxes:
            sandbox.close()
        self._threads.shutdown(wait=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    async def __aenter__(self) -> ParserPool:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    async def parse(self, upload: Upload) -> AsyncGenerator[Opened | Prepared]:
        """What is known of an upload, then its rows, part by part; closing the generator ends the parser.

        Raises InputError (the cells are wrong), UnreadableError (so are the bytes, or reading them crashed or took too
        long), TooLargeError, UnsupportedMediaTypeError, also between parts.
        """
        self._refuse_unknown(upload)
        loop = asyncio.get_running_loop()
        groups: asyncio.Queue[tuple[Opened | Prepared, ...] | None] = asyncio.Queue()

        def pump(sandbox: Sandbox, scratch: Path) -> None:
            for group in sandbox.stream(parser_process.parse, scratch, upload):
                loop.call_soon_threadsafe(groups.put_nowait, group)

        reading = asyncio.create_task(self._run(upload.size, pump))
        reading.add_done_callback(lambda _: groups.put_nowait(None))
        left: int | None = None
        try:
            while left != 0 and (group := await groups.get()) is not None:
                for part in group:
                    left = part.num_cells if isinstance(part, Opened) else (left or 0) - len(part.rows)
                    yield part
            if left != 0:
                await reading
        finally:
            if left == 0:  # all is there; that the parser also says so is not waited for
                reading.add_done_callback(_look_at)
            else:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def encode(self, answer: Answer, media_type: str, upload: Upload | None = None) -> bytes | Path:
        """The answer in a format; where the request was a file of that format, built upon it.

        Returns the bytes, or a file that the caller deletes when it has been sent.
        Raises UnsupportedMediaTypeError, and what `parse` raises.
        """
        codec = writer_for(media_type)
        if codec is None:
            raise UnsupportedMediaTypeError(f"'{media_type[:100]}' is not a format of answers that can be written.")
        target = self._new_path(codec.suffix)
        size = sum(part.nbytes for part in answer.parts) + (upload.size if upload is not None else 0)
        try:
            content = await self._run(
                size,
                lambda sandbox, scratch: sandbox.call(
                    parser_process.encode, scratch, answer, codec.media_type, upload, target
                ),
            )
        except BaseException:
            target.unlink(missing_ok=True)
            raise
        return target if content is None else content

    def _refuse_unknown(self, upload: Upload) -> None:
        if codec_for(upload.media_type) is None:
            known = ", ".join(READABLE)
            raise UnsupportedMediaTypeError(
                f"'{upload.media_type[:100]}' is no format of cells that is read here. Use one of: {known}.",
                field="Content-Type",
            )
        check_encoding(upload.content_encoding)

    def _new_path(self, suffix: str = "") -> Path:
        return self._directory / f"{uuid.uuid4().hex}{suffix}"

    async def _run(self, size: int, job: Callable[[Sandbox, Path], T]) -> T:
        if size <= LARGE_BYTES:
            return await self._run_now(job)
        async with self._large:
            return await self._run_now(job)

    async def _run_now(self, job: Callable[[Sandbox, Path], T]) -> T:
        sandbox = await self._free.get()
        scratch = self._new_path()
        future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(self._threads, job, sandbox, scratch)

        def give_back(done: asyncio.Future[T]) -> None:
            if not done.cancelled():
                done.exception()  # looked at, also when nobody waits any more
            shutil.rmtree(scratch, ignore_errors=True)
            self._free.put_nowait(sandbox)

        future.add_done_callback(give_back)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            # The client hung up: its upload is not worth another second. After the call the sandbox is another's.
            if not future.done():
                sandbox.cancel()
            raise
        except SandboxError as error:
            raise _refusal(error) from error


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("parser: after the last cell: %s", error)


def _refusal(error: SandboxError) -> InputError | TooLargeError:
    log.warning("parser: %s: %s", error.reason, error)
    if error.reason == "memory":
        return TooLargeError(f"The upload cannot be read: {error}. Send fewer cells at a time.")
    reason = "the reader failed on it" if error.reason == "fault" else str(error)
    return UnreadableError(
        "parser-timeout" if error.reason == "timeout" else "parser-crash",
        f"The upload cannot be read: {reason}.",
        mend="Send fewer cells at a time; if a small file fails too, write it again with anndata's write_h5ad.",
        field="body",
    )


def _bearable_memory() -> int:
    return min(8 << 30, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
