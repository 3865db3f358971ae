from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from scpalm.app.http.openapi.bodies import SparseCells
from scpalm.model.bundle import Bundle
from tests.e2e.conftest import BUNDLE, Server

StartServer = Callable[..., Server]
H5AD = "application/x-hdf5"


def as_json(cells: anndata.AnnData) -> dict[str, object]:
    return {
        "genes": list(cells.var_names),
        "obs_names": list(cells.obs_names),
        "indptr": cells.X.indptr.tolist(),
        "indices": cells.X.indices.tolist(),
        "data": cells.X.data.tolist(),
    }


def embed_json(server: Server, cells: anndata.AnnData) -> NDArray[np.float32]:
    answer = httpx.post(f"{server.url}/embed", json=as_json(cells), timeout=60)
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["values"], np.float32)


def test_the_file_is_returned_with_embeddings(server: Server, cells: Path, tmp_path: Path) -> None:
    with cells.open("rb") as file:
        answer = httpx.post(f"{server.url}/embed", files={"file": file}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == H5AD
    (tmp_path / "out.h5ad").write_bytes(answer.content)
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    values = out.obsm["X_scpalm"]
    assert values.shape[0] == 150 and values.dtype == np.float32
    assert np.isfinite(values).all() and values.std(axis=0).max() > 0
    assert list(out.obs["batch"]) == ["one", "two"] * 75


def test_a_cell_has_the_same_result_in_any_batch_and_format(server: Server, cells: Path, tmp_path: Path) -> None:
    data = anndata.read_h5ad(cells)
    whole = embed_json(server, data)
    order = np.random.default_rng(1).permutation(150)
    np.testing.assert_array_equal(embed_json(server, data[order].copy()), whole[order])
    for row in (0, 77, 149):
        np.testing.assert_array_equal(embed_json(server, data[row].copy())[0], whole[row])
    headers = {"content-type": H5AD}
    answer = httpx.post(f"{server.url}/embed", content=cells.read_bytes(), headers=headers, timeout=60)
    (tmp_path / "out.h5ad").write_bytes(answer.content)
    np.testing.assert_array_equal(anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm"], whole)


def test_concurrent_clients_get_their_own_cells(server: Server, cells: Path) -> None:
    data = anndata.read_h5ad(cells)
    whole = embed_json(server, data)
    found: dict[int, NDArray[np.float32]] = {}

    def ask(start: int) -> None:
        found[start] = embed_json(server, data[start : start + 10].copy())

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 150, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 15
    for start, values in found.items():
        np.testing.assert_array_equal(values, whole[start : start + 10])


def test_command_line_and_service_give_the_same_result(server: Server, cells: Path, tmp_path: Path) -> None:
    out = ["-o", str(tmp_path / "out.h5ad"), "--bundle", str(BUNDLE)]
    command = [sys.executable, "-m", "scpalm.app.cli", "embed", str(cells), *out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    assert "150/150" in done.stderr
    values = anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm"]
    np.testing.assert_array_equal(values, embed_json(server, anndata.read_h5ad(cells)))


def test_the_documented_example_works(server: Server) -> None:
    example = SparseCells.model_config["json_schema_extra"]["example"]  # type: ignore[index]
    answer = httpx.post(f"{server.url}/embed", json=example, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["shape"][0] == 2


def test_garbage_is_a_problem_and_the_service_keeps_running(server: Server, cells: Path) -> None:
    for body in (b"", b"garbage", cells.read_bytes()[:5000]):
        answer = httpx.post(f"{server.url}/embed", files={"file": ("x.h5ad", body)}, timeout=60)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
    assert httpx.get(f"{server.url}/health/live").status_code == 200


def test_cards_metrics_and_documentation(server: Server) -> None:
    bundle = Bundle.load(BUNDLE)
    (model,) = httpx.get(f"{server.url}/models").json()["models"]
    assert (model["name"], model["version"], model["default"]) == (bundle.name, bundle.version, True)
    assert httpx.get(f"{server.url}/models/{bundle.name}").json() == bundle.manifest
    assert "scpalm_rows_total" in httpx.get(f"{server.url}/metrics").text
    assert httpx.get(f"{server.url}/docs").status_code == 200


def test_sigterm_finishes_running_requests_and_exits_0(start_server: StartServer, cells: Path) -> None:
    server = start_server(drain_seconds="1.5", bulk_cells="100").wait_until_ready()
    data = anndata.read_h5ad(cells)
    many = anndata.concat([data] * 12, index_unique="-")
    answers: list[httpx.Response] = []
    sending = threading.Thread(
        target=lambda: answers.append(httpx.post(f"{server.url}/embed?output=h_C", json=as_json(many), timeout=120))
    )
    sending.start()
    ends = time.monotonic() + 60
    while 'scpalm_queue_rows{lane="bulk"} 0.0' in httpx.get(f"{server.url}/metrics").text:
        assert time.monotonic() < ends and sending.is_alive(), "the request never reached the queue"
    server.process.send_signal(signal.SIGTERM)
    while (ready := httpx.get(f"{server.url}/health/ready")).status_code == 200:
        assert time.monotonic() < ends
    assert ready.status_code == 503
    assert httpx.post(f"{server.url}/embed", json={}).status_code == 503
    sending.join(120)
    assert server.process.wait(60) == 0, server.log.read_text()
    assert answers[0].status_code == 200
    assert answers[0].json()["shape"][0] == 1800


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_loading_exits_0(start_server: StartServer, number: int) -> None:
    server = start_server().wait_until_listening()
    assert server.stop(number) == 0, server.log.read_text()
    assert "Traceback" not in server.log.read_text()


def test_an_invalid_bundle_exits_1_with_one_line(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--bundle", str(tmp_path))
    assert server.process.wait(60) == 1
    log = server.log.read_text()
    assert log.strip().splitlines()[-1].startswith("scpalm: ") and "manifest.json" in log
    assert "Traceback" not in log


def test_a_port_in_use_exits_1_with_one_line(start_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start_server("--port", str(taken.getsockname()[1]))
        assert server.process.wait(60) == 1
    (line,) = server.log.read_text().strip().splitlines()
    assert line.startswith("scpalm: Cannot listen on")


def test_json_logs_are_json(start_server: StartServer) -> None:
    server = start_server(log_format="json").wait_until_ready()
    httpx.get(f"{server.url}/nowhere")
    assert server.stop() == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (access,) = [line for line in lines if line["logger"] == "scpalm.access" and line["path"] == "/nowhere"]
    assert access["status"] == 404 and access["seconds"] >= 0


def stall(server: Server) -> socket.socket:
    """A client that declares a longer body than it sends."""
    host, port = server.url.removeprefix("http://").split(":")
    client = socket.create_connection((host, int(port)), timeout=60)
    head = f"POST /embed HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    client.sendall(head.encode() + b"{")
    return client


def has_upload(server: Server) -> bool:
    """Whether an upload occupies the only slot."""
    return httpx.post(f"{server.url}/embed", json={}, timeout=60).status_code == 429


def test_a_stalled_client_gets_a_response_and_is_disconnected(start_server: StartServer) -> None:
    server = start_server(body_idle_seconds="0.5").wait_until_ready()
    with stall(server) as client:
        answer = b"".join(iter(lambda: client.recv(4096), b""))  # to the end, because the server closes the connection
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in answer and b"body-timeout" in answer
    assert server.stop() == 0


def test_a_stalled_client_does_not_delay_shutdown(start_server: StartServer) -> None:
    server = start_server(max_uploads="1", stop_seconds="1", drain_seconds="0").wait_until_ready()
    with stall(server):
        ends = time.monotonic() + 20
        while not has_upload(server):
            assert time.monotonic() < ends
        started = time.monotonic()
        assert server.stop() == 0, server.log.read_text()
        assert time.monotonic() - started < 20
