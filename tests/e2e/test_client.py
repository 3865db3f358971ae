"""The client against a real server: the engine's numbers, jobs, retries and typed errors; tl and pl."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest

import scpalm
from scpalm.client import exchange
from scpalm.client.errors import BusyError, CellsError, KeyRefusedError, ServiceError, TooLargeError, error_of
from tests.e2e.conftest import Server


@pytest.fixture
def adata(cells: Path) -> anndata.AnnData:
    return anndata.read_h5ad(cells)[:60].copy()


@pytest.fixture
def client(server: Server) -> Iterator[scpalm.Client]:
    with scpalm.Client(server.url, progress=False) as client:
        yield client


CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "embed": ({}, "X_scpalm"),
    "impute": ({"genes": ["CD3D", "LYZ"]}, "X_scpalm_imputed"),
    "pathways": ({"summary": True}, "X_scpalm_pathway_shares"),
    "ic50": ({"drugs": ["Cisplatin"]}, "X_scpalm_ic50"),
}


@pytest.mark.parametrize("name", CALLS)
def test_client_and_engine_write_the_same_values(client: scpalm.Client, adata: anndata.AnnData, name: str) -> None:
    options, key = CALLS[name]
    other = adata.copy()
    assert getattr(client, name)(adata, **options) is None
    getattr(scpalm.tl, name)(other, **options)
    assert set(adata.obsm) == set(other.obsm)
    np.testing.assert_array_equal(adata.obsm[key], other.obsm[key])
    assert adata.uns["scpalm"]["keys"] == other.uns["scpalm"]["keys"]


def test_labels_are_columns_of_obs_and_a_reference_is_sent(client: scpalm.Client, adata: anndata.AnnData) -> None:
    other = adata.copy()
    client.annotate(adata)
    scpalm.tl.annotate(other)
    assert adata.obs["scpalm_label"].tolist() == other.obs["scpalm_label"].tolist()
    assert adata.obs["scpalm_label"].dtype == "category" and set(adata.obs) == set(other.obs)
    other.obs["kind"] = ["one", "two"] * 30
    client.annotate(adata, other, label="kind", key_added="mine")
    assert set(adata.obs["mine_label"]) <= {"one", "two", "unknown"}


def test_copy_and_key_added(client: scpalm.Client, adata: anndata.AnnData) -> None:
    before = set(adata.obsm)
    copied = client.embed(adata, copy=True, key_added="mine")
    assert copied is not None and set(adata.obsm) == before
    assert copied.obsm["mine"].shape[0] == 60 and copied.uns["scpalm"]["key"] == "mine"


def test_many_cells_become_a_job_that_can_be_resumed(
    start_server: Callable[..., Server], adata: anndata.AnnData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "JOB_CELLS", 10)
    (tmp_path / "jobs").mkdir()
    server = start_server(results_dir=str(tmp_path / "jobs")).wait_until_ready()
    other, again = adata.copy(), adata.copy()
    with scpalm.Client(server.url, progress=False) as client:
        client.embed(adata)
        scpalm.tl.embed(other)
        np.testing.assert_array_equal(adata.obsm["X_scpalm"], other.obsm["X_scpalm"])
        (job,) = client.jobs()
        assert job["state"] == "succeeded" and job["rows"] == 60
        client.resume(job["id"], again)
        np.testing.assert_array_equal(again.obsm["X_scpalm"], other.obsm["X_scpalm"])
        asyncio.run(resume_there(server.url, job["id"], fresh := other.copy()))
        np.testing.assert_array_equal(fresh.obsm["X_async"], other.obsm["X_scpalm"])
        client.cancel(job["id"])


async def resume_there(url: str, job_id: str, adata: anndata.AnnData) -> None:
    async with scpalm.AsyncClient(url) as client:
        assert [model["default"] for model in await client.models()] == [True]
        assert [job["id"] for job in await client.jobs()] == [job_id]
        await client.resume(job_id, adata, key_added="X_async")


def test_several_calls_run_at_once(server: Server, adata: anndata.AnnData) -> None:
    many = [adata.copy() for _ in range(4)]

    async def run() -> None:
        async with scpalm.AsyncClient(server.url) as client:
            await asyncio.gather(*(client.embed(one) for one in many))

    asyncio.run(run())
    other = adata.copy()
    scpalm.tl.embed(other)
    for one in many:
        np.testing.assert_array_equal(one.obsm["X_scpalm"], other.obsm["X_scpalm"])


def test_refusals_are_typed_and_carry_the_problem(client: scpalm.Client, adata: anndata.AnnData) -> None:
    with pytest.raises(CellsError, match="no layer") as caught:
        client.embed(adata, layer="nothing")
    assert caught.value.status == 422 and caught.value.problem["field"] == "layer"
    with pytest.raises(ServiceError) as unknown:
        client.resume("nothing", adata)
    assert unknown.value.status == 404
    assert [model["default"] for model in client.models()] == [True]


@pytest.mark.parametrize(
    ("status", "kind"),
    [(422, CellsError), (401, KeyRefusedError), (413, TooLargeError), (503, BusyError), (500, ServiceError)],
)
def test_statuses_have_classes(status: int, kind: type[ServiceError]) -> None:
    error = error_of(status, b'{"type": "urn:scpalm:problem:some-code", "detail": "why"}')
    assert type(error) is kind and (error.code, error.detail) == ("some-code", "why")
    assert error_of(status, b"<html>").status == status


def test_a_busy_service_is_asked_again_after_its_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    class Busy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(1)
            self.send_response(503 if len(seen) < 3 else 200)
            self.send_header("Retry-After", "7")
            self.end_headers()
            self.wfile.write(b'{"models": []}')

        def log_message(self, *words: object) -> None:
            return

    pauses: list[float] = []
    monkeypatch.setattr("scpalm.client.client.time.sleep", pauses.append)
    with HTTPServer(("127.0.0.1", 0), Busy) as busy:
        threading.Thread(target=busy.serve_forever, daemon=True).start()
        with scpalm.Client(f"http://127.0.0.1:{busy.server_port}") as client:
            assert client.models() == []
        busy.shutdown()
    assert pauses == [7.0, 7.0]


def test_a_service_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scpalm.client.client.time.sleep", lambda seconds: None)
    with scpalm.Client("http://127.0.0.1:9") as client, pytest.raises(ServiceError, match="cannot be reached"):
        client.models()


def test_plots_return_their_axes(adata: anndata.AnnData) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    adata.obs["group"] = ["one", "two"] * 30
    scpalm.tl.annotate(adata)
    scpalm.tl.pathways(adata)
    scpalm.tl.ic50(adata, ["Cisplatin", "Gefitinib"])
    figure, axes = plt.subplots(1, 5)
    drawn = [
        scpalm.pl.annotation(adata, ax=axes[0]),
        scpalm.pl.annotation(adata, "group", ax=axes[1]),
        scpalm.pl.coverage(adata, ax=axes[2], title="genes"),
        scpalm.pl.pathways(adata, "group", ax=axes[3], n_codes=5),
        scpalm.pl.ic50(adata, "group", ax=axes[4]),
    ]
    assert drawn == list(axes) and axes[2].get_title() == "genes"
    assert [text.get_text() for text in axes[4].get_xticklabels()] == ["Cisplatin", "Gefitinib"] or len(
        axes[4].get_xticklabels()
    ) == 2
    assert scpalm.pl.coverage(adata, return_fig=True) is not figure
    with pytest.raises(KeyError, match=r"run scpalm\.tl\.annotate first"):
        scpalm.pl.annotation(adata, key="nothing", show=False)
    plt.close("all")
