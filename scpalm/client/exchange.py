"""The course of a call as a generator, without input or output: it yields requests and pauses, and gets answers.

`Client` and `AsyncClient` carry them out, each in its own way.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scpalm.client.anndata_file import read_results, write_cells
from scpalm.client.errors import BusyError, JobError, ServiceError, error_of
from scpalm.model.methods import Call

if TYPE_CHECKING:
    from anndata import AnnData

H5AD = "application/x-hdf5"
# Above this many cells, the service computes a job, which survives a lost connection.
JOB_CELLS = 5000
MAX_TRIES = 6
_LONGEST_PAUSE = 60.0
_POLL_SECONDS = 0.3

Report = Callable[[int, int], None]  # rows done, rows


@dataclass(frozen=True)
class Request:
    """A request to send. ``files``: form fields with files; ``save_to``: where the body of an answer 200 goes."""

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    save_to: Path | None = None


@dataclass(frozen=True)
class Answer:
    """What came back. ``status`` 0: the service could not be reached, and ``body`` says why."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Pause:
    """Wait for this many seconds."""

    seconds: float


Steps = Generator[Request | Pause, Answer | None, Any]


def compute(adata: AnnData, call: Call, report: Report) -> Steps:
    """The course of one call: returns the modified copy, or None."""
    with tempfile.TemporaryDirectory(prefix="scpalm-client-") as folder:
        cells, result = Path(folder) / "cells.h5ad", Path(folder) / "result.h5ad"
        write_cells(adata, cells, call.spec.layer)
        files = {"file": cells}
        query = query_of(call)
        if call.reference is not None:
            files["reference"] = _as_file(call.reference, Path(folder))
        request = Request("POST", f"/{call.spec.tasks[0]}", query, {"Accept": H5AD}, files, result)
        if adata.n_obs > JOB_CELLS:
            yield from _by_job(request, result, report)
        else:
            yield from _answered(request)
        return read_results(result, adata, call.key_added, copy=call.copy)


def query_of(call: Call) -> dict[str, Any]:
    """The options of a call as query parameters."""
    spec = call.spec
    query = {name: value for name, value in spec.options.items() if value not in ("", [], None)}
    query |= {name: getattr(spec, name) for name in ("layer", "total", "model") if getattr(spec, name) is not None}
    if spec.input != "auto":
        query["input"] = spec.input
    if call.reference is not None:
        query["reference_label"] = call.reference_by.label
        if call.reference_by.layer is not None:
            query["reference_layer"] = call.reference_by.layer
    return query


def fetch(job_id: str, adata: AnnData, call: Call, report: Report) -> Steps:
    """Wait for a job of an earlier call, and write its results into the same cells."""
    with tempfile.TemporaryDirectory(prefix="scpalm-client-") as folder:
        result = Path(folder) / "result.h5ad"
        yield from _finished(f"/jobs/{job_id}", report)
        yield from _answered(Request("GET", f"/jobs/{job_id}/result", headers={"Accept": H5AD}, save_to=result))
        return read_results(result, adata, call.key_added, copy=call.copy)


def simple(request: Request) -> Steps:
    """One request; returns its answer."""
    answer = yield from _answered(request)
    return answer


def _by_job(request: Request, result: Path, report: Report) -> Steps:
    # With the same key, a request that is sent again after a lost connection gets the same job.
    headers = {**request.headers, "Prefer": "respond-async", "Idempotency-Key": uuid.uuid4().hex}
    accepted = yield from _answered(Request("POST", request.path, request.query, headers, request.files))
    where = accepted.headers["location"]
    yield from _finished(where, report)
    yield from _answered(Request("GET", f"{where}/result", headers={"Accept": H5AD}, save_to=result))


def _finished(where: str, report: Report) -> Steps:
    import json

    while True:
        answer = yield from _answered(Request("GET", where))
        job = json.loads(answer.body)
        report(job["rows_done"], job["rows"] or 0)
        if job["state"] == "succeeded":
            return job
        if job["state"] in ("failed", "cancelled"):
            raise JobError(0, job["error"] or f"The job {job['id']} was {job['state']}.", job)
        yield Pause(_POLL_SECONDS)


def _answered(request: Request) -> Generator[Request | Pause, Answer | None, Answer]:
    """Send a request until it is answered with success. Waits as Retry-After says. Raises ServiceError."""
    pause = 0.5
    for attempt in range(MAX_TRIES):
        answer = yield request
        assert answer is not None
        if 200 <= answer.status < 300:
            return answer
        error = error_of(answer.status, answer.body) if answer.status else _unreachable(answer)
        if attempt + 1 == MAX_TRIES or not (isinstance(error, BusyError) or answer.status == 0):
            raise error
        asked = answer.headers.get("retry-after", "")
        yield Pause(min(float(asked), _LONGEST_PAUSE) if asked.isdigit() else pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    raise AssertionError("the last try returns or raises")


def _unreachable(answer: Answer) -> ServiceError:
    return ServiceError(0, f"The service cannot be reached: {answer.body.decode('utf-8', 'replace')}")


def _as_file(source: Any, folder: Path) -> Path:
    if isinstance(source, str | Path):
        return Path(source)
    path = folder / "reference.h5ad"
    write_cells(source, path, None)
    return path
