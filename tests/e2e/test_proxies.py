"""X-Forwarded-For says who the client is only if a trusted proxy sends it."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.e2e.test_serve import StartServer


def test_only_trusted_proxies_are_believed(start_server: StartServer) -> None:
    trusted = {"": "203.0.113.9", "none": "127.0.0.1", "10.0.0.0/8": "127.0.0.1", "127.0.0.0/8": "203.0.113.9"}
    servers = {text: start_server(log_format="json", trusted_proxies=text) for text in trusted}
    for text, client in trusted.items():
        server = servers[text].wait_until_listening()
        # The last address is the one that the proxy saw; those before it are claims of the client.
        httpx.get(f"{server.url}/nowhere", headers={"X-Forwarded-For": "198.51.100.1, 203.0.113.9"})
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
        (access,) = [line for line in lines if line["logger"] == "scpalm.access"]
        assert access["client"] == client, text


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_forged_address_is_one_line(start_server: StartServer, log_format: str) -> None:
    server = start_server(log_format=log_format).wait_until_listening()
    before = len(server.log.read_text().splitlines())
    httpx.get(f"{server.url}/nowhere%0Aforged", headers={b"X-Forwarded-For": b"a\x85b key=admin"})
    server.stop()
    lines = [line for line in server.log.read_text().splitlines()[before:] if "scpalm.access" in line]
    assert len(lines) == 1 and lines[0].isprintable() and chr(0x85) not in lines[0]
    assert '\\u0085b key=admin"' in lines[0]
