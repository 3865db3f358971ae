"""The requests of `soak.py`: every kind, some of them malformed, some of them jobs. Each is followed to its end."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import anndata
import httpx
import numpy as np
import pandas as pd
from scipy import sparse

from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from tests.bench.bench_service import as_h5ad, as_json
from tests.bench.service import ARROW, H5AD, JSON, as_arrow

SIZES = (1, 1, 3, 8, 64, 64, 200, 500)
PATHS = ("/embed", "/embed", "/embed", "/pathways", "/impute?genes=CD3D,NKG7", "/ic50?drugs=Cisplatin", "/annotate")
MALFORMED = 0.05
JOBS = 0.05
# Answers that refuse a request and say when to send it again, so it is not lost.
REFUSALS = ("429", "503", "507")
_JOB_SECONDS = 300.0


@dataclass
class Counts:
    """What became of the requests.

    Attributes:
        answers: requests by status; the name of the error if the connection broke.
        refusals: refused requests by the first words of the reason.
        wrong: malformed requests that got another answer than 4xx, and others that got 4xx, with the answer.
        lost: requests that were accepted and got no result, in words.
        versions: answers by version of the model.
        slowest: seconds of the slowest answer.
    """

    answers: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


def make_bodies() -> list[tuple[str, bytes]]:
    """Media type and bytes of bodies of all sizes in all formats."""
    random = np.random.default_rng(0)
    genes = Bundle.load(DEFAULT_BUNDLE).vocabulary.symbols[:12_000]
    bodies = []
    for size in sorted(set(SIZES)):
        counts = random.poisson(random.gamma(0.1, 1.0, len(genes)), (size, len(genes)))
        cells = anndata.AnnData(sparse.csr_matrix(counts, dtype=np.float32), var=pd.DataFrame(index=genes))
        bodies += [(JSON, as_json(cells)), (ARROW, as_arrow(cells)), (H5AD, as_h5ad(cells))]
    return bodies


class Load:
    """Starts requests at random times, even while earlier ones are unanswered."""

    def __init__(self, url: str, rate: float) -> None:
        self._rate = rate
        self._client = httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=64))
        self._random = np.random.default_rng(1)
        self._bodies = make_bodies()
        weights = np.array([len(body) ** -0.35 for _, body in self._bodies])
        self._weights = weights / weights.sum()
        self.counts = Counts()

    async def run(self, minutes: float) -> None:
        """Send for some time, then wait for all answers and jobs."""
        waiting: set[asyncio.Task[None]] = set()
        ends = time.monotonic() + 60 * minutes
        async with self._client:
            while time.monotonic() < ends:
                task = asyncio.create_task(self._send())
                waiting.add(task)
                task.add_done_callback(waiting.discard)
                await asyncio.sleep(self._random.exponential(1 / self._rate))
            await asyncio.gather(*waiting)

    async def _send(self) -> None:
        random = self._random
        kind, body = self._bodies[int(random.choice(len(self._bodies), p=self._weights))]
        path = str(random.choice(PATHS))
        malformed, job = random.random() < MALFORMED, random.random() < JOBS
        headers = {"Content-Type": kind} | ({"Prefer": "respond-async"} if job else {})
        started = time.monotonic()
        try:
            answer = await self._client.post(
                path, content=body[: len(body) // 2] if malformed else body, headers=headers
            )
            await self._note(answer, f"{path} {kind}", malformed=malformed)
        except httpx.HTTPError as error:
            self.counts.answers[type(error).__name__] += 1
            self.counts.lost.append(f"{path} {kind}: {error!r}")
        self.counts.slowest = max(self.counts.slowest, time.monotonic() - started)

    async def _note(self, answer: httpx.Response, what: str, *, malformed: bool) -> None:
        counts, status = self.counts, answer.status_code
        counts.answers[str(status)] += 1
        if status == 202:
            await self._follow(answer.headers["location"], what, malformed=malformed)
        elif str(status) in REFUSALS:
            counts.refusals[f"{status} {answer.json()['detail'][:60]}"] += 1
        elif status >= 500:
            counts.lost.append(f"{what}: {status} {answer.text[:200]}")
        elif malformed != (status >= 400):
            counts.wrong.append(f"{what}: {status} {answer.text[:200]}")
        elif status == 200 and answer.headers["content-type"].startswith("application/json"):
            counts.versions[answer.json()["model"]["version"]] += 1

    async def _follow(self, location: str, what: str, *, malformed: bool) -> None:
        """Wait for a job and fetch its result."""
        async with asyncio.timeout(_JOB_SECONDS):
            while (job := (await self._client.get(location)).json())["state"] in ("queued", "running"):
                await asyncio.sleep(1.0)
        if job["state"] == "succeeded" and not malformed:
            result = await self._client.get(f"{location}/result")
            self.counts.answers[f"job {result.status_code}"] += 1
            if result.status_code != 200:
                self.counts.lost.append(f"result of {what}: {result.status_code}")
        elif malformed != (job["state"] == "failed"):
            self.counts.lost.append(f"job {what}: {job['state']} {job.get('error')}")
        else:
            self.counts.answers["job failed, as it must"] += 1
