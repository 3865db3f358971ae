"""Fixtures for `tests.app.fakes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from fastapi import FastAPI

from scpalm.app.execution.worker import Worker
from scpalm.app.main import create_app
from scpalm.app.queue.transport import LANES
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.settings import Settings
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.bundle import Bundle
from tests.app.fakes import Client, FakeSession, write_bundle


@pytest.fixture(autouse=True, scope="session")
def fresh_metrics() -> Iterator[None]:
    """Metrics are rendered for each scrape, so that tests see what has just happened."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scpalm.app.telemetry.metrics_page.KEEP_SECONDS", 0.0)
        yield


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(["/embed", "/health/live"], ["json", "h5ad"], LANES)


@pytest.fixture
def transport() -> MemoryTransport:
    return MemoryTransport(max_rows=100_000, max_bytes=1 << 30)


@pytest.fixture
def start_worker(session: FakeSession, transport: MemoryTransport, metrics: Metrics) -> Iterator[Callable[..., Worker]]:
    """Starts workers with batches of 8 rows and stops them after the test."""
    workers: list[Worker] = []

    def start(*, resume: bool = False) -> Worker:
        worker = Worker(session, transport, metrics, batch_rows=8)
        workers.append(worker)
        worker.start(resume=resume)
        return worker

    yield start
    session.gate.set()
    for worker in workers:
        worker.stop()


@pytest.fixture(scope="session")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with genes and a manifest, but no network."""
    return write_bundle(tmp_path_factory.mktemp("bundle"))


def _make_app(session: FakeSession, **settings: object) -> FastAPI:
    def open_session(bundle: Bundle, settings: Settings) -> FakeSession:
        return session

    chosen = {"batch_cells": 8, "parser_processes": 1, **settings}
    return create_app(Settings(**chosen), open_session)  # type: ignore[arg-type]


@pytest.fixture
def make_app(bundle_dir: Path, session: FakeSession, tmp_path: Path) -> Callable[..., FastAPI]:
    """Creates an app with the fake session; keyword arguments are settings."""
    return partial(_make_app, session, bundle=bundle_dir, spool_dir=tmp_path)


@pytest.fixture
def own_client(make_app: Callable[..., FastAPI]) -> Iterator[Client]:
    """A loaded app with default settings and ``session``, for one test."""
    with Client(make_app()) as client:
        yield client.wait_until_loaded()


@pytest.fixture(scope="session")
def client(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A loaded app shared by tests, because parser processes are slow to start. Do not change its session or state."""
    with Client(_make_app(FakeSession(), bundle=bundle_dir, spool_dir=tmp_path_factory.mktemp("spool"))) as client:
        yield client.wait_until_loaded()
