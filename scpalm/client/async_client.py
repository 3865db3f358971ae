"""`AsyncClient`: as `Client`, for code that awaits."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from scpalm.client.bar import Bar
from scpalm.client.connection import CHUNK, cancel_job, listed, lower, options_of, with_model
from scpalm.client.exchange import Answer, Pause, Report, Request, Steps, compute, fetch
from scpalm.model.methods import AnnDataMethods, Call
from scpalm.model.spec import RequestSpec

if TYPE_CHECKING:
    from anndata import AnnData


class AsyncClient(AnnDataMethods[Awaitable["AnnData | None"]]):
    """As `Client`, for code that awaits, such as a notebook. Several calls may run at once.

    Args:
        url: address of the service, such as ``http://localhost:8000``.
        key: API key, if the service has keys.
        model: name of the model. Default: that of the service.
        timeout: seconds to wait for one answer.
        progress: whether to show a bar for jobs. Default: no, since bars of several calls overwrite each other.

    Raises:
        ServiceError: the service refused a request, or cannot be reached; see `scpalm.client.errors`.

    Example:
        >>> async with scpalm.AsyncClient("http://localhost:8000") as client:
        ...     await client.embed(adata)
    """

    def __init__(
        self,
        url: str,
        key: str | None = None,
        *,
        model: str | None = None,
        timeout: float = 600,
        progress: bool = False,
    ) -> None:
        self._http = httpx.AsyncClient(**options_of(url, key, timeout))
        self._model, self._progress = model, progress

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def models(self) -> list[dict[str, Any]]:
        """The models of the service; see `Client.models`.

        Returns:
            A dict for each model: ``name`` and ``version`` (str), ``device`` (str), ``default`` (bool), and more.

        Raises:
            ServiceError: the service refused or cannot be reached.

        Example:
            >>> await client.models()
        """
        return list(await self._drive(listed("/models", "models")))

    async def jobs(self) -> list[dict[str, Any]]:
        """The jobs of this key, newest first; see `Client.jobs`.

        Returns:
            A dict for each job: ``id`` and ``state`` (str), ``rows`` and ``rows_done`` (int), ``error`` (str or None),
            and more.

        Raises:
            ServiceError: the service refused or cannot be reached.

        Example:
            >>> await client.jobs()
        """
        return list(await self._drive(listed("/jobs", "jobs")))

    async def resume(
        self, job_id: str, adata: AnnData, *, key_added: str | None = None, copy: bool = False
    ) -> AnnData | None:
        """Wait for a job of an earlier session, and write its results into the same cells; see `Client.resume`.

        Args:
            job_id: id of the job, from `jobs` or from the page.
            adata: the cells that were sent, in the same order.
            key_added: key to use instead of the default.
            copy: whether to return a modified copy, and leave ``adata`` unchanged.

        Returns:
            None, or the modified copy if ``copy`` is set. Writes what the method that started the job writes.

        Raises:
            JobError: the job failed or was cancelled.
            ServiceError: the job is unknown, or the service cannot be reached.

        Example:
            >>> await client.resume(job_id, adata)
        """
        call = Call(RequestSpec(("embed",)), key_added, copy=copy)
        return await self._with_bar(lambda report: fetch(job_id, adata, call, report))

    async def cancel(self, job_id: str) -> None:
        """Cancel a queued or running job, and delete its files. A job that has ended is not changed.

        Args:
            job_id: id of the job.

        Raises:
            ServiceError: the job is unknown, or the service cannot be reached.

        Example:
            >>> await client.cancel(job_id)
        """
        await self._drive(cancel_job(job_id))

    def _run(self, adata: AnnData, call: Call) -> Awaitable[AnnData | None]:
        return self._with_bar(lambda report: compute(adata, with_model(call, self._model), report))

    async def _with_bar(self, steps_of: Callable[[Report], Steps]) -> AnnData | None:
        bar = Bar(enabled=self._progress)
        try:
            found: AnnData | None = await self._drive(steps_of(bar.report))
            return found
        finally:
            bar.close()

    async def _drive(self, steps: Steps) -> Any:
        answer: Answer | None = None
        while True:
            try:
                # Writing and reading h5ad blocks, so it happens in a thread.
                step = await asyncio.to_thread(_next, steps, answer)
            except _EndedError as ended:
                return ended.value
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                answer = None
            else:
                answer = await self._send(step)

    async def _send(self, request: Request) -> Answer:
        content, headers = _form(request)
        try:
            async with self._http.stream(
                request.method,
                request.path,
                params=dict(request.query),
                headers={**request.headers, **headers},
                content=content,
            ) as response:
                if request.save_to is None or response.status_code != 200:
                    return Answer(response.status_code, lower(response.headers), await response.aread())
                with request.save_to.open("wb") as target:
                    async for chunk in response.aiter_bytes(CHUNK):
                        await asyncio.to_thread(target.write, chunk)
                return Answer(response.status_code, lower(response.headers))
        except httpx.TransportError as error:
            return Answer(0, body=str(error).encode())


class _EndedError(Exception):
    """The generator has ended: StopIteration cannot leave a thread."""

    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


def _next(steps: Steps, answer: Answer | None) -> Request | Pause:
    try:
        return steps.send(answer)
    except StopIteration as ended:
        raise _EndedError(ended.value) from None


def _form(request: Request) -> tuple[AsyncIterator[bytes] | None, dict[str, str]]:
    """A multipart form that is read in chunks: httpx reads files of an asynchronous request at once."""
    if not request.files:
        return None, {}
    boundary = uuid.uuid4().hex
    return _parts(request.files, boundary), {"Content-Type": f"multipart/form-data; boundary={boundary}"}


async def _parts(files: Mapping[str, Path], boundary: str) -> AsyncIterator[bytes]:
    for name, path in files.items():
        yield (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{path.name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK):
                yield chunk
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
