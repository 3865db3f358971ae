from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from scipy import sparse

from tests.app.fakes import Client, FakeSession

GENES = [f"GENE{n}" for n in range(30)]
BODY = {"genes": GENES, "obs_names": ["a", "b"], "indptr": [0, 2, 3], "indices": [0, 1, 5], "data": [1, 2, 3]}
H5AD = "application/x-hdf5"


def write_cells(path: Path, num_cells: int = 2) -> bytes:
    counts = np.zeros((num_cells, len(GENES)), np.float32)
    counts[:, :6] = np.array([[1, 2, 0, 0, 0, 0], [0, 0, 0, 0, 0, 3]], np.float32)[np.arange(num_cells) % 2]
    cells = anndata.AnnData(sparse.csr_matrix(counts))
    cells.obs_names, cells.var_names = [f"cell{n}" for n in range(num_cells)], GENES
    cells.obs["kind"] = "T"
    cells.write_h5ad(path)
    return path.read_bytes()


def check_problem(answer: httpx.Response, status: int, code: str, **members: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == f"urn:scpalm:problem:{code}"
    assert problem["status"] == status
    assert problem["title"] and problem["detail"]
    assert "Traceback" not in problem["detail"]
    for name, value in members.items():
        assert problem[name] == value


def test_json_requests_get_json_responses(client: Client) -> None:
    answer = client.post("/embed", json=BODY)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    found = answer.json()
    assert list(found)[:4] == ["model", "obs_names", "shape", "values"]
    assert list(found)[4:] == ["release", "checksum", "coverage", "input", "warnings"]
    assert found["model"] == {"name": "fake", "version": "0.1"}
    assert found["obs_names"] == ["a", "b"]
    assert found["shape"] == [2, 3]
    assert [row[0] for row in found["values"]] == [2.0, 1.0]
    assert found["coverage"]["genes_matched"] == 30
    assert found["input"]["detected"] == "counts"
    timing = answer.headers["server-timing"]
    assert [part.split(";")[0].strip() for part in timing.split(",")] == ["parse", "queue", "inference", "encode"]


@pytest.mark.parametrize("way", ["form", "raw", "gzip"])
def test_h5ad_responses_are_the_uploaded_file_with_the_key_added(client: Client, tmp_path: Path, way: str) -> None:
    content = write_cells(tmp_path / "in.h5ad")
    if way == "form":
        answer = client.post("/embed", files={"file": ("cells.h5ad", content, "application/octet-stream")})
    elif way == "raw":
        answer = client.post("/embed", content=content, headers={"content-type": H5AD})
    else:
        headers = {"content-type": H5AD, "content-encoding": "gzip"}
        answer = client.post("/embed", content=gzip.compress(content), headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == H5AD
    (tmp_path / "out.h5ad").write_bytes(answer.content)
    cells = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert cells.obsm["X_scpalm"].shape == (2, 3)
    assert list(cells.obs["kind"]) == ["T", "T"]
    assert cells.uns["scpalm"]["model"]["name"] == "fake"


def test_all_formats_give_the_same_bits_and_accept_chooses_the_response(client: Client, tmp_path: Path) -> None:
    content = write_cells(tmp_path / "in.h5ad")
    as_json = client.post("/embed", content=content, headers={"content-type": H5AD, "accept": "application/json"})
    assert as_json.json()["values"] == client.post("/embed", json=BODY).json()["values"]
    as_h5ad = client.post("/embed", json=BODY, headers={"accept": H5AD})
    (tmp_path / "out.h5ad").write_bytes(as_h5ad.content)
    written = anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm"]
    np.testing.assert_array_equal(written, np.array(as_json.json()["values"], np.float32))


def test_no_files_are_left_on_disk(client: Client, tmp_path: Path) -> None:
    content = write_cells(tmp_path / "in.h5ad")
    spool = client.service.settings.spool_dir
    before = set(spool.rglob("*"))
    for sent in (content, content[:1000]):
        client.post("/embed", files={"file": sent})
    assert set(spool.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "status", "code", "members"),
    [
        ({"data": [1, -2, 3]}, 422, "negative-value", {"cell": "a", "gene": "GENE1", "field": "data"}),
        ({"data": [1, None, 3]}, 422, "not-finite", {"cell": "a", "gene": "GENE1"}),
        ({"indices": [0, 1, 99]}, 422, "index-out-of-range", {"cell": "b"}),
        ({"indptr": [0, 2]}, 422, "length-mismatch", {}),
        ({"indptr": [0], "indices": [], "data": []}, 422, "no-cells", {}),
        ({"genes": ["Xyz"] * 30}, 422, "no-known-gene", {}),
        ({"genes": 3}, 422, "wrong-type", {"field": "genes"}),
    ],
)
def test_invalid_cells_are_problems(
    client: Client, change: dict[str, object], status: int, code: str, members: dict[str, str]
) -> None:
    answer = client.post("/embed", json={**BODY, **change})
    if code == "no-known-gene":  # the vocabulary chooses the exact code
        code = answer.json()["type"].rpartition(":")[2]
    check_problem(answer, status, code, **members)


def test_unreadable_bytes_are_problems(client: Client, tmp_path: Path) -> None:
    check_problem(client.post("/embed", content=b"no", headers={"content-type": H5AD}), 400, "not-hdf5")
    check_problem(client.post("/embed", files={"file": b"no"}), 400, "not-hdf5")
    check_problem(client.post("/embed", content=b"{", headers={"content-type": "application/json"}), 400, "not-json")
    half = write_cells(tmp_path / "in.h5ad")[:3000]
    assert client.post("/embed", files={"file": half}).status_code == 400
    check_problem(client.post("/embed", files={"cells": b"x"}), 400, "bad-request", field="file")


def test_invalid_requests_are_problems(client: Client) -> None:
    check_problem(
        client.post("/embed", content=b"x", headers={"content-type": "text/csv"}), 415, "unsupported-media-type"
    )
    check_problem(client.post("/embed", content=b"x"), 400, "not-hdf5", field="file")  # without a type, by content
    check_problem(
        client.post("/embed", json=BODY, headers={"content-encoding": "br"}), 415, "unsupported-media-type",
        field="Content-Encoding",
    )  # fmt: skip
    check_problem(client.post("/embed", json=BODY, headers={"accept": "image/png"}), 406, "not-acceptable")
    check_problem(client.post("/embed?input=fpkm", json=BODY), 422, "invalid-parameter", field="input")
    check_problem(client.post("/embed?layer=spliced", json=BODY), 422, "no-such-layer", field="layer")
    check_problem(client.get("/embed"), 405, "method-not-allowed")
    check_problem(client.get("/nowhere"), 404, "not-found")


def test_limits_on_bytes_and_cells(make_app: Callable[..., FastAPI], tmp_path: Path) -> None:
    content = write_cells(tmp_path / "in.h5ad")
    with Client(make_app(max_body_bytes=len(content) - 1, max_cells=1)) as client:
        client.wait_until_loaded()
        check_problem(client.post("/embed", files={"file": content}), 413, "too-large")
        check_problem(client.post("/embed", content=content, headers={"content-type": H5AD}), 413, "too-large")

        async def chunks():  # type: ignore[no-untyped-def]
            yield content[:100]
            yield content[100:]

        check_problem(client.post("/embed", content=chunks(), headers={"content-type": H5AD}), 413, "too-large")
        assert client.post("/embed", json=BODY).status_code == 413
        bomb = gzip.compress(b" " * (len(content) + 10))
        headers = {"content-type": "application/json", "content-encoding": "gzip"}
        assert client.post("/embed", content=bomb, headers=headers).status_code == 413


def test_a_full_queue_answers_429_with_retry_after(make_app: Callable[..., FastAPI], session: FakeSession) -> None:
    with Client(make_app(max_cells=2, max_queued_cells=2)) as client:
        client.wait_until_loaded()
        session.gate.clear()
        first = client.submit(client.http.post("/embed", json=BODY))
        assert session.running.wait(20)
        answer = client.post("/embed", json=BODY)
        check_problem(answer, 429, "queue-full")
        assert int(answer.headers["retry-after"]) >= 1
        assert client.get("/health/ready").status_code == 503
        session.gate.set()
        assert first.result(20).status_code == 200
        assert client.get("/health/ready").status_code == 200
        metrics = client.get("/metrics").text
    assert 'scpalm_rejected_total{reason="queue_full"} 1.0' in metrics


def test_uploads_beyond_the_slots_are_refused(make_app: Callable[..., FastAPI]) -> None:
    with Client(make_app(max_uploads=1)) as client:
        client.wait_until_loaded()
        with client.service.upload_slots.hold("other client"):
            answer = client.post("/embed", json=BODY)
            check_problem(answer, 429, "queue-full")
            assert answer.headers["retry-after"] == "1"
        assert client.post("/embed", json=BODY).status_code == 200


def test_an_upload_slot_is_free_while_the_device_works(make_app: Callable[..., FastAPI], session: FakeSession) -> None:
    with Client(make_app(max_uploads=1)) as client:
        client.wait_until_loaded()
        session.gate.clear()
        waiting = client.submit(client.http.post("/embed", json=BODY))
        assert session.running.wait(20)
        # The device starts with the first part, shortly before the parser reports that it was the last one.
        until = time.monotonic() + 20
        while client.service.upload_slots.num_held:
            assert time.monotonic() < until, "the slot is still held after the body was parsed"
            time.sleep(0.01)
        with client.service.upload_slots.hold("other client"):
            session.gate.set()
            assert waiting.result(20).status_code == 200


def test_draining_finishes_running_requests_and_refuses_new_ones(
    make_app: Callable[..., FastAPI], session: FakeSession
) -> None:
    with Client(make_app()) as client:
        client.wait_until_loaded()
        session.gate.clear()
        first = client.submit(client.http.post("/embed", json=BODY))
        assert session.running.wait(20)
        client.in_loop(client.service.drain)
        refused = client.post("/embed", json=BODY)
        check_problem(refused, 503, "draining")
        assert refused.headers["connection"] == "close" and int(refused.headers["retry-after"]) > 0
        assert client.get("/health/ready").status_code == 503
        assert client.get("/health/live").status_code == 200
        closing = client.submit(client.service.close())
        session.gate.set()
        assert first.result(20).status_code == 200
        closing.result(20)


def test_cells_of_a_disconnected_client_are_abandoned(own_client: Client, session: FakeSession) -> None:
    session.gate.clear()
    own_client.submit(own_client.http.post("/embed", json=BODY))
    assert session.running.wait(20)
    body = json.dumps({**BODY, "obs_names": ["c", "d"]}).encode()

    async def hang_up() -> list[str]:
        sent: list[str] = []
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, object]:
            if messages:
                return messages.pop()
            while len(own_client.service.model().transport._entries) < 2:  # type: ignore[attr-defined]
                await asyncio.sleep(0.005)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            sent.append(str(message.get("status", "")))

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": "/embed",
            "raw_path": b"/embed", "query_string": b"", "root_path": "", "scheme": "http", "server": ("test", 80),
            "client": ("test", 1), "headers": [(b"content-type", b"application/json")],
        }  # fmt: skip
        await own_client.app(scope, receive, send)  # type: ignore[arg-type]
        return sent

    assert own_client.run(hang_up())[0] == "499"
    session.gate.set()
    dropped = "scpalm_dropped_total"
    for _ in range(200):
        if own_client.service.metrics.registry.get_sample_value(dropped, {"reason": "client_gone"}) == 1:
            break
        own_client.run(asyncio.sleep(0.02))
    assert own_client.service.metrics.registry.get_sample_value(dropped, {"reason": "client_gone"}) == 1
    assert sum(map(len, session.calls)) == 2


def test_a_model_failure_affects_only_its_request(own_client: Client, session: FakeSession) -> None:
    session.poison = 7
    bad = {**BODY, "indices": [0, 1, 7]}
    check_problem(own_client.post("/embed", json=bad), 500, "inference-failed")
    assert own_client.post("/embed", json=BODY).status_code == 200


def test_an_unexpected_error_is_a_problem_without_a_traceback(
    own_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(num_cells: int) -> str:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(own_client.service.model(), "lane_of", broken)
    answer = own_client.post("/embed", json=BODY)
    check_problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
