"""The nginx sample in front of a real service: large files, events, addresses of clients, certificates."""

from __future__ import annotations

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.deploy.files import DEPLOY, tool
from tests.e2e.conftest import Server
from tests.e2e.test_serve import StartServer

# `make test` sends 30 MB, over nginx's own limit of 1 MB; SCPALM_FUZZ_TLS_MB=1000 sends what the sample promises.
MEGABYTES = int(os.environ.get("SCPALM_FUZZ_TLS_MB", "30"))
nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
needs_nginx = pytest.mark.skipif(nginx is None, reason="nginx is not installed (Debian has it)")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture
def served(start_server: StartServer, tmp_path: Path) -> Iterator[tuple[Server, str, ssl.SSLContext]]:
    """A service behind nginx: the server, the URL of the proxy, and a context that trusts its certificate."""
    server = start_server(results_dir=str(tmp_path / "jobs"), allowed_hosts="scpalm.test").wait_until_ready()
    port = free_port()
    key, certificate = tmp_path / "scpalm.key", tmp_path / "scpalm.pem"
    tool(
        "openssl",
        *("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=scpalm.test"),
        *("-addext", "subjectAltName=DNS:scpalm.test", "-keyout", str(key), "-out", str(certificate)),
    )
    sample = (DEPLOY / "tls" / "nginx.conf").read_text()
    for pattern, text in (
        (r"server 127\.0\.0\.1:8000;", f"server {urlsplit(server.url).netloc};"),
        (r"listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (r"scpalm\.example\.org", "scpalm.test"),
        (r"/etc/ssl/scpalm\.pem", str(certificate)),
        (r"/etc/ssl/scpalm\.key", str(key)),
    ):
        sample, number = re.subn(pattern, text, sample)
        assert number == 1, f"{pattern} is not in the sample once"
    paths = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; pid {tmp_path}/nginx.pid; error_log {tmp_path}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{paths}{sample} }}\n"
    )
    assert nginx is not None
    process = subprocess.Popen([nginx, "-e", str(tmp_path / "error.log"), "-c", str(tmp_path / "nginx.conf")])
    trusted = ssl.create_default_context(cafile=str(certificate))
    url = f"https://scpalm.test:{port}"
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield server, url, trusted
    finally:
        process.terminate()
        process.wait(10)


class ToLoopback(httpx.HTTPTransport):
    """Sends every name to this machine and keeps the name for TLS and the Host header, as a hosts file does."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.extensions["sni_hostname"] = request.url.host
        request.headers["Host"] = request.url.host
        request.url = request.url.copy_with(host="127.0.0.1")
        return super().handle_request(request)


@needs_nginx
def test_files_events_and_addresses_pass_the_proxy(
    served: tuple[Server, str, ssl.SSLContext], cells: Path, tmp_path: Path
) -> None:
    server, url, trusted = served
    with httpx.Client(base_url=url, transport=ToLoopback(verify=trusted), timeout=120) as client:
        assert client.get("/health/ready").status_code == 200
        body = cells.read_bytes()
        # HDF5 ignores what follows the end of the file that its header names.
        large = body + b"\0" * (MEGABYTES * 1_000_000 - len(body))
        answer = client.post("/embed", content=large, headers={"Content-Type": "application/x-hdf5"})
        assert answer.status_code == 200, answer.text[:300]
        direct = httpx.post(f"{server.url}/embed", files={"file": body}, headers={"Accept": "application/json"})
        through = client.post("/embed", files={"file": body}, headers={"Accept": "application/json"})
        assert through.json()["values"] == direct.json()["values"]
        job = client.post("/embed", files={"file": body}, headers={"Prefer": "respond-async"})
        assert job.status_code == 202 and job.headers["Location"].startswith("/jobs/")
        with client.stream("GET", f"{job.headers['Location']}/events") as events:
            assert "event: end" in "".join(events.iter_text())
    assert "Traceback" not in server.log.read_text()
