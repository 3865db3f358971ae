from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from fastapi import FastAPI

from scpalm.app.http.middleware.hosts import is_allowed
from scpalm.app.settings import Settings
from tests.app.fakes import Client


@pytest.mark.parametrize(
    ("host", "allowed", "expected"),
    [
        ("localhost", ["localhost"], True),
        ("LOCALHOST.:8000", ["localhost"], True),
        ("[::1]:8000", ["[::1]"], True),
        ("[::1]", ["[::1]"], True),
        ("127.0.0.1:8000", ["127.0.0.1"], True),
        ("127.0.0.1.evil.example", ["127.0.0.1"], False),
        ("localhost:80@evil.example", ["localhost"], False),
        ("[::1]evil.example", ["[::1]"], False),
        ("a.example.org:443", ["*.example.org"], True),
        ("example.org", ["*.example.org"], False),
        ("evilexample.org", ["*.example.org"], False),
        ("", ["localhost"], False),
    ],
)
def test_a_host_is_compared_without_its_port(host: str, allowed: list[str], expected: bool) -> None:
    assert is_allowed(host, allowed) is expected


LOCAL = ("localhost", "127.0.0.1", "[::1]")


@pytest.mark.parametrize(
    ("host", "allowed", "served"),
    [
        ("127.0.0.1", "", LOCAL),
        ("localhost", "", LOCAL),
        ("::1", "", LOCAL),
        ("127.0.0.2", "", (*LOCAL, "127.0.0.2")),
        ("0.0.0.0", "", None),
        ("::", "", None),
        ("127.0.0.1", "*", None),
        ("0.0.0.0", "Cells.example.org, *.lab.example", ("cells.example.org", "*.lab.example", *LOCAL)),
    ],
)
def test_the_served_hosts_depend_on_the_address(host: str, allowed: str, served: tuple[str, ...] | None) -> None:
    assert Settings(host=host, allowed_hosts=allowed).served_hosts == served


@pytest.mark.parametrize("wrong", ["http://cells.example", "cells.example:8000", "a*.example", "two words"])
def test_a_faulty_name_is_refused_at_the_start(wrong: str) -> None:
    with pytest.raises(ValueError, match="host name"):
        Settings(allowed_hosts=wrong)


def status(client: Client, path: str, *hosts: str) -> httpx.Response:
    return client.get(path, headers=[("Host", host) for host in hosts])


def test_a_page_cannot_reach_a_local_service_by_its_own_name(client: Client) -> None:
    for path in ("/jobs", "/models", "/metrics", "/docs", "/v2"):
        refused = status(client, path, "rebound.evil.example:8000")
        assert refused.status_code == 400 and refused.headers["content-type"] == "application/problem+json"
        assert refused.json()["type"].endswith("unknown-host") and refused.json()["field"] == "Host"
        assert "SCPALM_ALLOWED_HOSTS" in refused.json()["detail"]
        assert refused.headers["x-request-id"]
    assert "error" in status(client, "/v2", "evil.example").json()
    assert status(client, "/jobs", "localhost", "evil.example").status_code == 400
    for name in ("localhost:8000", "127.0.0.1:8000", "[::1]:8000"):
        assert status(client, "/jobs", name).status_code == 200


def test_probes_reach_health_checks_by_any_address(client: Client) -> None:
    for path in ("/health/live", "/health/ready", "/v2/health/live"):
        assert status(client, path, "10.1.2.3:8000").status_code == 200


def test_a_service_on_the_network_serves_any_name_unless_names_are_set(make_app: Callable[..., FastAPI]) -> None:
    with Client(make_app(host="0.0.0.0")) as client:
        assert status(client.wait_until_loaded(), "/jobs", "cells.example.org").status_code == 200
    with Client(make_app(host="0.0.0.0", allowed_hosts="cells.example.org")) as client:
        client.wait_until_loaded()
        assert status(client, "/jobs", "cells.example.org").status_code == 200
        assert status(client, "/jobs", "10.1.2.3").status_code == 400
        assert status(client, "/health/ready", "10.1.2.3").status_code == 200
