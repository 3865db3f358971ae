"""A load with all kinds of requests (routes, formats, jobs, failing requests), so that every metric changes."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

import anndata
import httpx

from tests.bench.bench_service import as_h5ad, as_json, take
from tests.bench.service import as_arrow

_BODIES = {
    "application/json": as_json,
    "application/x-hdf5": as_h5ad,
    "application/vnd.apache.arrow.stream": as_arrow,
}
_PATHS = ("/embed", "/impute?genes=CD3D", "/pathways", "/ic50?drugs=Erlotinib")


class Load:
    """Clients that send requests until they are stopped. A context manager.

    Attributes:
        statuses: number of responses by status.
    """

    def __init__(self, url: str, cells: anndata.AnnData, clients: int = 2) -> None:
        self._url = url
        self._bodies = [(kind, encode(take(cells, 0, 32))) for kind, encode in _BODIES.items()]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(at,), daemon=True) for at in range(clients)]
        self._lock = threading.Lock()
        self.statuses: dict[int, int] = {}

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _send(self, turn: int) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._stop.is_set():
                kind, body = self._bodies[turn % len(self._bodies)]
                path = _PATHS[turn % len(_PATHS)]
                headers = {"content-type": kind, "accept": "application/json"}
                if turn % 17 == 0:
                    headers["prefer"] = "respond-async"
                elif turn % 23 == 0:
                    body = body[: len(body) // 2]  # 400
                self._count(client.post(path, content=body, headers=headers).status_code)
                turn += 1
                time.sleep(0.02)

    def _count(self, status: int) -> None:
        with self._lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
