"""Malformed bodies get a 4xx problem (or a result, if the damage is harmless) and have no other effect.

`SCPALM_FUZZ_BODIES=30000 pytest tests/fuzz` sends more bodies; `SCPALM_FUZZ_SEED` chooses different ones.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable

import httpx
import psutil  # type: ignore[import-untyped, unused-ignore]
from fastapi import FastAPI

from tests.app.fakes import Client, FakeSession
from tests.fuzz.mutations import H5AD, JSON, Sample, good_h5ad, good_json, samples

BODIES = int(os.environ.get("SCPALM_FUZZ_BODIES", "2000"))
SEED = int(os.environ.get("SCPALM_FUZZ_SEED", "0"))
AT_ONCE, AT_A_TIME = 8, 500
MEMORY_GROWTH = 200 << 20
# The bodies must be diverse: most are refused, and for many different reasons.
LEAST_REFUSED, LEAST_REASONS = 0.6, 15


async def ask(client: Client, sample: Sample) -> httpx.Response:
    return await client.http.post("/embed", content=sample.body, headers=sample.headers)


async def ask_all(client: Client, bodies: list[Sample]) -> list[httpx.Response]:
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(sample: Sample) -> httpx.Response:
        async with turn:
            return await ask(client, sample)

    return list(await asyncio.gather(*map(one, bodies)))


def memory(client: Client) -> int:
    processes = [os.getpid(), *client.service.model().parsers.pids]
    return sum(psutil.Process(pid).memory_info().rss for pid in processes)


def send(client: Client, bodies: list[Sample]) -> Counter[str]:
    """Send bodies and return the problem types of the refused ones."""
    reasons: Counter[str] = Counter()
    for sample, answer in zip(bodies, client.submit(ask_all(client, bodies)).result(3600), strict=True):
        if answer.status_code == 200:
            continue
        assert 400 <= answer.status_code < 500, f"{sample.what}: {answer.status_code} {answer.text[:300]}"
        assert answer.headers["content-type"] == "application/problem+json", sample.what
        problem = answer.json()
        assert problem["detail"] and problem["status"] == answer.status_code, sample.what
        assert "Traceback" not in answer.text and "/site-packages/" not in answer.text, sample.what
        reasons[problem["type"].rpartition(":")[2]] += 1
    return reasons


def test_malformed_bodies_cause_no_server_errors(
    make_app: Callable[..., FastAPI], session: FakeSession, record_property: Callable[[str, object], None]
) -> None:
    good = [
        Sample("good JSON", httpx.Request("POST", "http://x", json=good_json()).read(), {"content-type": JSON}),
        Sample("good h5ad", good_h5ad(), {"content-type": H5AD, "accept": JSON}),
    ]
    with Client(make_app(parser_processes=2, max_body_bytes=1 << 26, max_cells=1000)) as client:
        client.wait_until_loaded()
        before = [client.run(ask(client, sample)).json()["values"] for sample in good]
        client.submit(ask_all(client, samples(100, SEED + 1))).result(300)
        held = memory(client)
        reasons: Counter[str] = Counter()
        for start in range(0, BODIES, AT_A_TIME):  # the test itself must not hold the memory
            reasons += send(client, samples(min(AT_A_TIME, BODIES - start), (SEED << 16) + start))
            # The device must receive only genes of the vocabulary.
            assert all(rows.gene_index.max(initial=0) < 300 and (rows.value > 0).all() for rows in session.calls)
            session.calls.clear()
        record_property("reasons", dict(reasons))
        grown = memory(client) - held
        print(f"\nmemory of the service and its parsers: {held >> 20} MB, then {grown >> 20:+d} MB")
        print(f"{BODIES} bodies: {BODIES - reasons.total()} answered, {reasons.total()} refused: {dict(reasons)}")
        assert reasons.total() >= LEAST_REFUSED * BODIES and len(reasons) >= LEAST_REASONS, reasons
        assert [client.run(ask(client, sample)).json()["values"] for sample in good] == before
        assert client.get("/health/ready").status_code == 200 and client.service.model().transport.idle
        assert grown < MEMORY_GROWTH
