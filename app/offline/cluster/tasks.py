"""Code that runs on a Dask worker. Each process keeps one open file and one session for all its tasks."""

from __future__ import annotations

import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from distributed import Worker, WorkerPlugin, get_worker

from scpalm.app.offline.cluster.atlas import Atlas, ClusterError
from scpalm.app.offline.cluster.store import ResultWriter
from scpalm.model.bundle import Bundle, sha256_of
from scpalm.model.engine import load
from scpalm.model.release import release
from scpalm.model.spec import RequestSpec
from scpalm.model.stream import Stream


@dataclass(frozen=True)
class _Opened:
    stream: Stream
    result: ResultWriter


class EmbedPlugin(WorkerPlugin):
    """State of a run in a worker process. Dask installs it on every worker, including ones that join later."""

    def __init__(self, atlas: Atlas, folder: Path, *, local: bool) -> None:
        self.name = f"scpalm-embed-{atlas.identity[:16]}"
        self._atlas = atlas
        self._folder = folder
        self._local = local
        self._threads = 1
        self._opened: _Opened | None = None

    def setup(self, worker: Worker) -> None:
        """Set up the worker. Slow steps, and steps that may fail, are left to the first task."""
        self._threads = worker.state.nthreads
        self._lock = threading.Lock()
        if self._local and threading.current_thread() is threading.main_thread():
            # Ctrl-C reaches every process of the terminal, but the main process must stop the others in order.
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def teardown(self, worker: Worker) -> None:
        """Close the input."""
        if self._opened is not None:
            self._opened.stream.__exit__(None, None, None)

    def embed(self, start: int, stop: int) -> None:
        """Compute rows ``start`` to ``stop`` and write them. Raises InputError, BundleError, ClusterError, OSError."""
        with self._lock:  # one task at a time, because the session itself uses all threads of the worker
            if self._opened is None:
                self._opened = self._open()
            opened = self._opened
            values = np.empty((stop - start, self._atlas.width), dtype=np.float32)
            names: list[str] = []
            for block in opened.stream.rows(start, stop):
                position = block.start - start
                values[position : position + len(block.cells)] = block.values["embed"]
                names += block.cells
            opened.result.put(start, names, values)

    def _open(self) -> _Opened:
        atlas = self._atlas
        if release() != atlas.release:
            raise ClusterError(
                f"A worker has scpalm {release()}, but this command is {atlas.release}. "
                "Install the same version on all machines."
            )
        bundle = Bundle.load(atlas.bundle)
        if sha256_of(bundle.path / "manifest.json") != atlas.manifest:
            raise ClusterError(f"A worker has a different model in {bundle.path}. Copy the same model to all machines.")
        engine = load(bundle, threads=self._threads)
        spec = RequestSpec(("embed",), layer=atlas.layer, input=atlas.declared.name, total=atlas.declared.total)
        return _Opened(engine.stream(atlas.source, spec, report=atlas.report), ResultWriter(self._folder))


def embed_rows(plugin: str, start: int, stop: int) -> tuple[int, int]:
    """The Dask task: embed rows ``start`` to ``stop`` with the named plugin, and return these two."""
    state = get_worker().plugins[plugin]
    assert isinstance(state, EmbedPlugin)
    state.embed(start, stop)
    return start, stop
