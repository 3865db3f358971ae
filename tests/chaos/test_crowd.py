"""Normal requests are answered while many slow clients are connected; `tests.chaos.crowd` prints the large form."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped, unused-ignore]

from tests.chaos.crowd import CROWDS, served, with_crowd


def test_normal_requests_are_answered_in_every_crowd(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as url, asyncio.timeout(120):
            for kind, size in CROWDS.items():
                _, crowded = await with_crowd(url, kind, max(5, size // 10), 40)
                assert crowded.statuses == {200}, kind.__name__
                # A stuck event loop would show as seconds; latencies of milliseconds depend on the machine.
                assert crowded.p99 < 5, kind.__name__
            assert (await asyncio.to_thread(httpx.get, f"{url}/health/ready")).status_code == 200

    asyncio.run(scenario())
    assert not [child for child in psutil.Process().children() if "tests.chaos.entry" in child.cmdline()]
