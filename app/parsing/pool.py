"""A pool of parser processes that parse uploads and encode results. A crash there is a 400 error, not an outage.

A process that is ended from outside is no fault of the upload: the command runs once more, in another process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import sys
import tempfile
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar
from weakref import WeakSet

import pyarrow as pa
from pyarrow import parquet

from scpalm.app.codecs.registry import writer_for
from scpalm.app.codecs.result import Result
from scpalm.app.errors import UnsupportedMediaTypeError
from scpalm.app.parsing.commands import command, read_view_facts, refuse_unknown
from scpalm.app.parsing.isolation.isolate import Folders, warn_once
from scpalm.app.parsing.messages import Message, MessageError
from scpalm.app.parsing.process import ParserLimits, ParserProcess, ProcessError
from scpalm.app.parsing.pump import Pump
from scpalm.app.parsing.quick import takes_long
from scpalm.app.parsing.refusals import one_line, refusal
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.parsing.wire import PartReader, pack_result, pack_upload
from scpalm.app.storage.memory_budget import MemoryBudget
from scpalm.model.errors import BundleError
from scpalm.model.genes.prepare import Prepared
from scpalm.model.io.hdf5.view_facts import ViewFacts

log = logging.getLogger("scpalm.parsing")

T = TypeVar("T")

_CANCEL_AGAIN_SECONDS = 0.05
_SMALL_ANSWER_BYTES = 1 << 20
LARGE_BYTES = 8 << 20  # larger bodies never occupy all processes, so that small ones do not wait for them


class _NotQuickError(Exception):
    """A command of a small body took long while as many processes as may be were busy with large ones."""


class ParserPool:
    """Parser processes. Call `start`, then use `parse`, `head` and `encode` from the event loop.

    Args:
        genes: ``genes.parquet`` of the bundle; every process loads it once.
        limits: limits per process and upload; see `default_limits`.
        num_processes: number of processes.
        directory: folder for temporary files. Default: the system's.
        uploads: folders that the processes may read. Default: the system's for temporary files.
        memory: budget of the cells that were read and not computed yet. Default: one without a limit.

    Attributes:
        memory: the budget.
    """

    def __init__(
        self,
        genes: Path,
        limits: ParserLimits,
        *,
        num_processes: int = 2,
        directory: Path | None = None,
        uploads: Sequence[Path] | None = None,
        memory: MemoryBudget | None = None,
    ) -> None:
        self.memory = memory or MemoryBudget(sys.maxsize)
        # What the processes send is checked against these.
        self._num_genes, self._max_cells = _num_genes(genes), limits.max_cells
        self._directory = Path(tempfile.mkdtemp(prefix="scpalm-", dir=directory)).absolute()
        readable = (Path(tempfile.gettempdir()),) if uploads is None else uploads
        folders = Folders(tuple(path.absolute() for path in readable), (self._directory,))
        self._processes = [ParserProcess(genes, limits, folders) for _ in range(num_processes)]
        self._threads = ThreadPoolExecutor(num_processes, thread_name_prefix="parser")
        self._free: asyncio.LifoQueue[ParserProcess] = asyncio.LifoQueue()
        for process in self._processes:
            self._free.put_nowait(process)
        self._pumps: WeakSet[Pump] = WeakSet()
        self._large = asyncio.Semaphore(max(1, num_processes - 1))

    @property
    def pids(self) -> list[int]:
        """Process IDs of the processes."""
        return [process.pid for process in self._processes]

    @property
    def missing_isolation(self) -> tuple[str, ...]:
        """What the kernel does not offer for the isolation of the processes; see `isolate`."""
        return self._processes[0].missing_isolation

    async def start(self) -> None:
        """Wait until every process is ready. Raises BundleError if the genes cannot be loaded."""
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.run_in_executor(self._threads, p.set_up) for p in self._processes))
        warn_once(self.missing_isolation)

    def close(self) -> None:
        """Stop the processes and remove their files."""
        for process in self._processes:
            process.close()
        for pump in self._pumps:
            pump.stop()
        self._threads.shutdown(wait=True)
        shutil.rmtree(self._directory, ignore_errors=True)

    async def __aenter__(self) -> ParserPool:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.close)

    async def parse(self, upload: Upload) -> AsyncGenerator[UploadHead | Prepared]:
        """Yield the head of an upload, then its cells part by part. Closing the generator stops the parser.

        Errors may be raised after some parts.

        Raises:
            InputError: the cells are invalid.
            UnreadableError: the bytes cannot be read, crashed the reader, or took too long.
            TooLargeError: the upload exceeds a limit.
            UnsupportedMediaTypeError: no reader supports the media type or the content encoding.
            InterruptedParserError: the process was ended from outside, twice.
            DrainingError: the pool was closed.
        """
        refuse_unknown(upload)
        pump = Pump(upload, self._num_genes, self._max_cells, self.memory)
        self._pumps.add(pump)
        reading = asyncio.create_task(self._run(upload.num_bytes, pump.run))
        reading.add_done_callback(pump.end)
        left: int | None = None
        try:
            while left != 0 and (group := await pump.received.get()) is not None:
                for part in group:
                    left = part.num_cells if isinstance(part, UploadHead) else (left or 0) - len(part.rows)
                    yield part
            if left != 0:
                await reading
        finally:
            pump.stop()
            if left == 0:  # all cells have arrived: do not wait for the parser's final message
                reading.add_done_callback(_log_late_error)
            else:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def head(self, upload: Upload) -> UploadHead:
        """The head of an upload, without its cells. Raises the same errors as `parse`."""
        refuse_unknown(upload)

        def read(process: ParserProcess, scratch: Path) -> UploadHead:
            parts = PartReader(self._num_genes, self._max_cells)
            for found in parts.read(process.call(command("head", upload, scratch))):
                if isinstance(found, UploadHead):
                    return found
            raise MessageError("The reply has no head.")

        return await self._run(upload.num_bytes, read)

    async def view_facts(self, upload: Upload) -> ViewFacts:
        """What an upload has for a picture of its cells. Raises the same errors as `parse`."""
        refuse_unknown(upload)

        def read(process: ParserProcess, scratch: Path) -> ViewFacts:
            return read_view_facts(process.call(command("view", upload, scratch)))

        return await self._run(upload.num_bytes, read)

    async def encode(self, result: Result, media_type: str, upload: Upload | None = None) -> bytes | Path:
        """Encode a result. If the upload is a file of the same format, the result may be added to a copy of it.

        Returns the bytes, or a file that the caller must delete. Raises the same errors as `parse`.
        """
        writer = writer_for(media_type)
        if writer is None:
            raise UnsupportedMediaTypeError(f"Results cannot be written as '{media_type[:100]}'.")
        target = self._new_path(writer.suffix)
        result_content, arrays = pack_result(result)

        def write(process: ParserProcess, scratch: Path) -> bytes | None:
            content = {
                "result": result_content,
                "media_type": media_type,
                "target": str(target),
                "scratch": str(scratch),
                # What does not fit in memory while the client reads it becomes a file.
                "most_bytes": max(_SMALL_ANSWER_BYTES, self.memory.limit - self.memory.used),
            }
            upload_content, body = (None, {}) if upload is None or not writer.extends_files else pack_upload(upload)
            reply = process.call(Message("encode", {**content, "upload": upload_content}, {**arrays, **body}))
            if reply.content.get("in_file"):
                return None
            if "bytes" not in reply.arrays:
                raise MessageError("The reply has no bytes.")
            return self.memory.counted(reply.arrays["bytes"].data)

        try:
            content = await self._run(result.num_bytes + (upload.num_bytes if upload is not None else 0), write)
        except BaseException:
            await asyncio.to_thread(target.unlink, missing_ok=True)
            raise
        return target if content is None else content

    def _new_path(self, suffix: str = "") -> Path:
        return self._directory / f"{uuid.uuid4().hex}{suffix}"

    async def _run(self, num_bytes: int, job: Callable[[ParserProcess, Path], T]) -> T:
        if num_bytes <= LARGE_BYTES:
            with contextlib.suppress(_NotQuickError):
                return await self._run_twice(job, quick=True)
        async with self._large:
            return await self._run_twice(job, quick=False)

    async def _run_twice(self, job: Callable[[ParserProcess, Path], T], *, quick: bool) -> T:
        """Run a job, and once more if its process was ended from outside. Raises what clients get."""
        try:
            try:
                return await self._run_now(job, quick=quick)
            except ProcessError as error:
                if error.reason != "ended":
                    raise
                log.warning("parser: %s; the upload is read again", one_line(error))
                return await self._run_now(job, quick=quick)
        except ProcessError as error:
            raise refusal(error) from error
        except MessageError as error:
            raise refusal(ProcessError("message", str(error))) from error

    async def _run_now(self, job: Callable[[ParserProcess, Path], T], *, quick: bool) -> T:
        loop = asyncio.get_running_loop()
        process = await self._free.get()
        scratch = self._new_path()

        def run() -> T:
            try:
                return job(process, scratch)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)

        future: asyncio.Future[T] = loop.run_in_executor(self._threads, run)

        def release(done: asyncio.Future[T]) -> None:
            if not done.cancelled():
                done.exception()  # mark it as retrieved, because the caller may be gone
            self._free.put_nowait(process)

        def stop() -> None:
            # The job may not have reached its command yet, so ask again. It cannot hit the next command of the process.
            if not future.done():
                process.cancel()
                loop.call_later(_CANCEL_AGAIN_SECONDS, stop)

        future.add_done_callback(release)
        try:
            if quick and await takes_long(process, future):
                if self._large.locked():
                    stop()
                    await asyncio.wait([future])
                    raise _NotQuickError
                async with self._large:
                    return await asyncio.shield(future)
            return await asyncio.shield(future)
        except asyncio.CancelledError:  # the client disconnected: stop at once
            stop()
            raise


def _num_genes(genes: Path) -> int:
    try:
        return int(parquet.read_metadata(genes).num_rows)
    except (pa.ArrowException, OSError) as error:
        raise BundleError(f"{genes} cannot be read: {error}") from error


def _log_late_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("parser: error after the last cell: %s", error)
