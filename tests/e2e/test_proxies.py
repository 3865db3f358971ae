"""X-Forwarded-For says who the client is only if a trusted proxy sends it, and it cannot forge a line of the log."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.test_serve import StartServer

# The last address is the one that the proxy saw; those before it are claims of the client.
FORWARDED = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}


@pytest.mark.parametrize(("proxies", "client"), [("", "203.0.113.9"), ("10.0.0.0/8", "127.0.0.1")])
def test_only_trusted_proxies_are_believed(start_server: StartServer, proxies: str, client: str) -> None:
    server = start_server(trusted_proxies=proxies).wait_until_listening()
    httpx.get(f"{server.url}/first", headers=FORWARDED)
    httpx.get(f"{server.url}/second%0Aforged", headers={b"X-Forwarded-For": b"a\x85b key=admin"})
    assert server.stop() == 0
    lines = [line for line in server.log.read_bytes().decode().split("\n") if "scpalm.access" in line]
    assert len(lines) == 2 and all(line.isprintable() for line in lines)
    assert f" client={client} " in lines[0]
    assert (' client="a\\u0085b key=admin" ' in lines[1]) == (not proxies)
