"""`Client`: the methods of the engine, computed by a service."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from scpalm.client.bar import Bar
from scpalm.client.connection import CHUNK, cancel_job, listed, lower, options_of, with_model
from scpalm.client.exchange import Answer, Pause, Request, Steps, compute, fetch
from scpalm.model.methods import AnnDataMethods, Call
from scpalm.model.spec import RequestSpec

if TYPE_CHECKING:
    from anndata import AnnData


class Client(AnnDataMethods["AnnData | None"]):
    """A service, with the methods of `scpalm.load()`: ``embed, impute, pathways, ic50, annotate, integrate, umap``.

    Over 5,000 cells, the service computes a job, with a progress bar. A full or restarting service is asked again, as
    its ``Retry-After`` says. Use it as a context manager, or call `close`.

    Args:
        url: address of the service, such as ``http://localhost:8000``.
        key: API key, if the service has keys.
        model: name of the model. Default: that of the service.
        timeout: seconds to wait for one answer.
        progress: whether to show a bar for jobs.

    Raises:
        ServiceError: the service refused a request, or cannot be reached; see `scpalm.client.errors`.

    Example:
        >>> client = scpalm.Client("http://localhost:8000")
        >>> client.embed(adata)
        >>> adata.obsm["X_scpalm"].shape
        (100, 384)
    """

    def __init__(
        self, url: str, key: str | None = None, *, model: str | None = None, timeout: float = 600, progress: bool = True
    ) -> None:
        self._http = httpx.Client(**options_of(url, key, timeout))
        self._model, self._progress = model, progress

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def models(self) -> list[dict[str, Any]]:
        """The models of the service.

        Returns:
            A dict for each model: ``name`` and ``version`` (str), ``device`` (str), ``default`` (bool), and more.

        Raises:
            ServiceError: the service refused or cannot be reached.

        Example:
            >>> [model["name"] for model in client.models()]
            ['mini']
        """
        return list(self._drive(listed("/models", "models")))

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs of this key, newest first.

        Returns:
            A dict for each job: ``id`` and ``state`` (str), ``rows`` and ``rows_done`` (int), ``error`` (str or None),
            and more.

        Raises:
            ServiceError: the service refused or cannot be reached.

        Example:
            >>> client.jobs()[0]["state"]
            'succeeded'
        """
        return list(self._drive(listed("/jobs", "jobs")))

    def resume(
        self, job_id: str, adata: AnnData, *, key_added: str | None = None, copy: bool = False
    ) -> AnnData | None:
        """Wait for a job of an earlier session, and write its results into the same cells.

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
            >>> client.resume(client.jobs()[0]["id"], adata)
        """
        bar = Bar(enabled=self._progress)
        try:
            call = Call(RequestSpec(("embed",)), key_added, copy=copy)
            return self._drive(fetch(job_id, adata, call, bar.report))
        finally:
            bar.close()

    def cancel(self, job_id: str) -> None:
        """Cancel a queued or running job, or remove one that succeeded or failed. Deletes its files in both cases.

        Args:
            job_id: id of the job.

        Raises:
            ServiceError: the job is unknown, or the service cannot be reached.

        Example:
            >>> client.cancel(client.jobs()[0]["id"])
        """
        self._drive(cancel_job(job_id))

    def _run(self, adata: AnnData, call: Call) -> AnnData | None:
        bar = Bar(enabled=self._progress)
        try:
            return self._drive(compute(adata, with_model(call, self._model), bar.report))
        finally:
            bar.close()

    def _drive(self, steps: Steps) -> Any:
        answer: Answer | None = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as ended:
                return ended.value
            if isinstance(step, Pause):
                time.sleep(step.seconds)
                answer = None
            else:
                answer = self._send(step)

    def _send(self, request: Request) -> Answer:
        with ExitStack() as opened:
            files = {name: (path.name, opened.enter_context(path.open("rb"))) for name, path in request.files.items()}
            try:
                query, headers = dict(request.query), dict(request.headers)
                with self._http.stream(
                    request.method, request.path, params=query, headers=headers, files=files or None
                ) as response:
                    if request.save_to is None or response.status_code != 200:
                        return Answer(response.status_code, lower(response.headers), response.read())
                    with request.save_to.open("wb") as target:
                        for chunk in response.iter_bytes(CHUNK):
                            target.write(chunk)
                    return Answer(response.status_code, lower(response.headers))
            except httpx.TransportError as error:
                return Answer(0, body=str(error).encode())
