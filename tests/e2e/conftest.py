"""A real `scpalm serve` process on a free port, used over real sockets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata
import httpx
import numpy as np
import pytest
from scipy import sparse

from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle

# The packaged bundle, or another one to test.
BUNDLE = Path(os.environ.get("SCPALM_BUNDLE", DEFAULT_BUNDLE))


class Server:
    """One process: `scpalm serve` or another command that listens on a port.

    Attributes:
        url: base URL of the process.
        log: file with its stderr.
    """

    def __init__(
        self, log: Path, *arguments: str, command: str = "serve", cwd: str | None = None, **settings: str
    ) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SCPALM_")}
        environment |= {f"SCPALM_{name.upper()}": value for name, value in ({"bundle": str(BUNDLE)} | settings).items()}
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "scpalm.app.cli", command, "--port", "0", *arguments],
                stderr=stderr,
                stdout=subprocess.DEVNULL,
                env=environment,
                cwd=cwd or Path(__file__).parents[2],
            )
        self.url = ""

    def wait_until_listening(self) -> Server:
        self.url = self.wait_for(lambda: re.search(r"listening on (http://\S+)", self.log.read_text()))[1]
        return self

    def wait_until_ready(self) -> Server:
        self.wait_until_listening()
        self.wait_for(lambda: httpx.get(f"{self.url}/health/ready").status_code == 200)
        return self

    def wait_for(self, condition: Callable[[], object]):  # type: ignore[no-untyped-def]
        """Wait until a condition holds, and return what it returned."""
        ends = time.monotonic() + 60
        while not (found := condition()):
            assert self.process.poll() is None, f"the server ended: {self.log.read_text()}"
            assert time.monotonic() < ends, f"the server did not start: {self.log.read_text()}"
            time.sleep(0.05)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal to the process and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(180)  # it finishes accepted work first, which takes long on a busy machine


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers and stops them after the test."""
    with starter(tmp_path) as start:
        yield start


@contextmanager
def starter(folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts servers with logs in ``folder`` and stops them at the end of the context."""
    servers: list[Server] = []

    def start(*arguments: str, **settings: str) -> Server:
        servers.append(Server(folder / f"server{len(servers)}.log", *arguments, **settings))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            if server.process.poll() is None:
                server.process.kill()
                server.process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the packaged bundle, shared by tests that do not stop it."""
    server = Server(tmp_path_factory.mktemp("server") / "log").wait_until_ready()
    yield server
    assert server.stop() == 0


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An h5ad file of 150 cells with the genes of the packaged model and seeded random counts."""
    genes = Bundle.load(BUNDLE).vocabulary.symbols[:4000]
    random = np.random.default_rng(0)
    counts = random.poisson(random.gamma(0.2, 1.0, len(genes)), (150, len(genes))).astype(np.float32)
    data = anndata.AnnData(sparse.csr_matrix(counts))
    data.obs_names, data.var_names = [f"cell{n}" for n in range(len(counts))], genes
    data.obs["batch"] = ["one", "two"] * 75
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    data.write_h5ad(path)
    return path
