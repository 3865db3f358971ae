"""Metrics on a separate port, over real sockets."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx

from tests.e2e.conftest import Server


def test_metrics_have_a_separate_port(start_server: Callable[..., Server]) -> None:
    server = start_server(metrics_port="0", drain_seconds="0").wait_until_ready()
    found = re.search(r"metrics on (http://\S+)", server.log.read_text())
    assert found is not None
    answer = httpx.get(found[1])
    assert answer.status_code == 200 and len(answer.content) < 300_000
    assert "scpalm_rows_total" in answer.text
    assert httpx.get(found[1].replace("/metrics", "/embed")).status_code == 404
    assert httpx.get(f"{server.url}/metrics").status_code == 404
    assert server.stop() == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_a_port_of_metrics_in_use_exits_1_with_one_line(start_server: Callable[..., Server]) -> None:
    first = start_server(metrics_port="0").wait_until_ready()
    found = re.search(r"metrics on http://[^:]+:(\d+)", first.log.read_text())
    assert found is not None
    second = start_server(metrics_port=found[1])
    assert second.process.wait(60) == 1
    assert second.log.read_text().strip().splitlines()[-1].startswith("scpalm: Cannot listen on")
