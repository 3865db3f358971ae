"""A session without a model, so that tests can check the results of the service bit by bit."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import httpx
import numpy as np
from fastapi import FastAPI
from numpy.typing import NDArray

from scpalm.app.queue.transport import Lane, WorkItem
from scpalm.app.service import Service
from scpalm.model.bundle import FORMAT_VERSION
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.model.sessions.session import Encoded, SessionInfo, Speed, Tokens
from scpalm.model.tasks.embed import Embed

T = TypeVar("T")

NUM_GENES = 300
INFO = SessionInfo(
    "fake", "cpu", embedding_width=3, num_components=2, cell_width=3, num_tokens=1, num_codes=2, num_genes=NUM_GENES
)


class FakeSession:
    """Returns values that identify each row, so that misplaced rows are detected.

    Attributes:
        calls: the rows of every run.
        poison: gene index that makes a run fail.
        deadly: gene index that kills the thread of the worker.
        not_finite: gene index that makes a row return NaN.
        gate: event that runs wait for.
        running: event that is set while a run waits.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._info = replace(INFO, device=device)
        self.calls: list[Rows] = []
        self.poison = self.deadly = self.not_finite = -1
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Event()

    @property
    def info(self) -> SessionInfo:
        return self._info

    def warm_up(self) -> Speed:
        return Speed(0.0)

    def encode(self, rows: Rows, *, tokens: bool | NDArray[np.bool_] = True) -> Encoded:
        self.calls.append(rows)
        self.running.set()
        assert self.gate.wait(20), "a test did not open the gate"
        self.running.clear()
        if self.deadly in rows.gene_index:
            raise SystemExit("the thread is gone")
        if self.poison in rows.gene_index:
            raise RuntimeError("poisoned")
        values = expected(rows, self.not_finite)
        return Encoded(rows, values, values[:, :1], 2, Tokens(values, (rows.lengths()[:, None] % 2).astype(np.int32)))

    def impute(self, encoded: Encoded, genes: NDArray[np.int64]) -> NDArray[np.float32]:
        return (genes[None] + 1000.0 * encoded.codes).astype(np.float32)


def expected(rows: Rows, not_finite: int = -1) -> NDArray[np.float32]:
    """The result of FakeSession: number of genes, sum of values, and sum of gene index x value of each row."""
    out = np.zeros((len(rows), 3), dtype=np.float32)
    for row in range(len(rows)):
        part = slice(rows.indptr[row], rows.indptr[row + 1])
        genes, values = rows.gene_index[part], rows.value[part]
        out[row] = len(genes), values.sum(), (genes * values).sum()
        if not_finite in genes:
            out[row] = np.nan
    return out


def make_rows(num_rows: int, *, seed: int = 0, gene: int | None = None) -> Rows:
    """Random rows of 1 to 9 genes below 200. If ``gene`` is given, the last row has that gene too."""
    rng = np.random.default_rng(seed)
    genes = [np.sort(rng.choice(200, rng.integers(1, 10), replace=False)) for _ in range(num_rows)]
    if gene is not None:
        genes[-1] = np.append(genes[-1], gene)
    index = np.concatenate(genes).astype(np.int32)
    return Rows(
        np.concatenate([[0], np.cumsum([len(g) for g in genes])]).astype(np.int64),
        index,
        rng.uniform(0.1, 5, len(index)).astype(np.float32),
        (GeneSet(np.ones(NUM_GENES, dtype=bool)),),
        np.zeros(num_rows, dtype=np.int32),
    )


def make_work(num_rows: int, lane: Lane = "online", *, seed: int = 0, gene: int | None = None) -> WorkItem:
    return WorkItem((Embed(INFO),), make_rows(num_rows, seed=seed, gene=gene), lane)


def make_vocabulary() -> Vocabulary:
    return Vocabulary(
        [f"ENSG{n:011d}" for n in range(NUM_GENES)],
        [f"GENE{n}" for n in range(NUM_GENES)],
        [[] for _ in range(NUM_GENES)],
    )


def write_bundle(folder: Path, name: str = "fake", version: str = "0.1") -> Path:
    """Write a bundle with genes and a manifest, but no network."""
    folder.mkdir(exist_ok=True)
    make_vocabulary().save(folder / "genes.parquet")
    digest = hashlib.sha256((folder / "genes.parquet").read_bytes()).hexdigest()
    files = {"genes.parquet": {"sha256": digest}}
    manifest = {"format_version": FORMAT_VERSION, "name": name, "version": version, "files": files}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


class Client:
    """Runs an app and its lifespan on an event loop in a thread, for use from synchronous tests."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Client:
        self._thread.start()
        self._life = self.app.router.lifespan_context(self.app)
        self.run(self._life.__aenter__())
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False), base_url="http://localhost", timeout=30
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.http.aclose())
        self.run(self._life.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def service(self) -> Service:
        service: Service = self.app.state.service
        return service

    def run(self, coroutine: Coroutine[None, None, T]) -> T:
        """Run a coroutine and return its result."""
        return self.submit(coroutine).result(60)

    def in_loop(self, function: Callable[[], T]) -> T:
        """Call a function on the event loop of the app and return its result."""

        async def call() -> T:
            return function()

        return self.run(call())

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def submit(self, coroutine: Coroutine[None, None, T]) -> Future[T]:
        """Start a coroutine in the background and return its future."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def wait_until_loaded(self) -> Client:
        self.run(self.service.settled.wait())
        return self

    def get(self, path: str, **more: object) -> httpx.Response:
        return self.run(self.http.get(path, **more))  # type: ignore[arg-type]

    def head(self, path: str, **more: object) -> httpx.Response:
        return self.run(self.http.head(path, **more))  # type: ignore[arg-type]

    def post(self, path: str, **more: object) -> httpx.Response:
        return self.run(self.http.post(path, **more))  # type: ignore[arg-type]
