"""The task, the format and the transport described in docs/architecture.md work when added to a copy of the code."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from tests.e2e.conftest import BUNDLE, Server, starter
from tests.redis_server import RedisServer, needs_redis

ROOT = Path(__file__).parents[2]
JSON = {"Accept": "application/json"}
NPY = {"Accept": "application/x-npy"}
TSV = "text/tab-separated-values"
GENES = ["CD3D", "CD3E", "IL7R", "LYZ", "S100A9", "CST3", "MS4A1", "CD79A", "NKG7", "GNLY"]
COUNTS = np.array([[4, 3, 2, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 9, 12, 5, 0, 0, 0, 1]], dtype=np.float32)


def _body() -> dict[str, object]:
    counts = sparse.csr_matrix(COUNTS)
    return {
        "genes": GENES,
        "indptr": counts.indptr.tolist(),
        "indices": counts.indices.tolist(),
        "data": counts.data.tolist(),
    }


@dataclass(frozen=True)
class Extended:
    """A copy of the code with the three added files, and the folder to run it in."""

    code: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SCPALM_")}
        return kept | {"PYTHONPATH": str(self.code), "SCPALM_BUNDLE": str(BUNDLE)}

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "scpalm.app.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Extended:
    code = tmp_path_factory.mktemp("code")
    for name in ("app", "model"):
        shutil.copytree(ROOT / name, code / name, ignore=shutil.ignore_patterns("__pycache__", "bundles"))
    shutil.copytree(ROOT / "scpalm", code / "scpalm", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    files = re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.DOTALL)
    assert [Path(name).parent.name for name, _ in files] == ["tasks", "codecs", "transports"]
    for name, content in files:
        assert not (code / name).exists(), f"{name} is no new file"
        (code / name).write_text(content, encoding="utf-8")
    return Extended(code, tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def server(extended: Extended) -> Iterator[Server]:
    """A server that uses the added transport."""
    with pytest.MonkeyPatch.context() as patch, starter(extended.folder) as start:
        patch.setenv("PYTHONPATH", str(extended.code))
        server = start(redis_url=f"journal://{extended.folder}/journal", cwd=str(extended.folder))
        yield server.wait_until_ready()


@pytest.fixture(scope="module")
def lengths(server: Server) -> NDArray[np.float32]:
    """The expected result of the added task, computed from the embedding."""
    answer = httpx.post(f"{server.url}/embed", json=_body(), headers=JSON).json()
    return np.linalg.norm(np.array(answer["values"], dtype=np.float32), axis=1, keepdims=True)


def _close(values: object, expected: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(np.array(values, dtype=np.float32), expected, rtol=1e-6)


def test_the_task_is_a_route_and_combines_with_others(server: Server, lengths: NDArray[np.float32]) -> None:
    answer = httpx.post(f"{server.url}/magnitude", json=_body(), headers=JSON)
    assert answer.status_code == 200, answer.text
    assert answer.json()["columns"] == ["length"]
    _close(answer.json()["values"], lengths)
    both = httpx.post(f"{server.url}/embed?also=magnitude&norm=l1", json=_body(), headers=JSON).json()
    _close(both["magnitude"]["values"], np.abs(both["values"]).sum(axis=1, keepdims=True))
    wrong = httpx.post(f"{server.url}/magnitude?norm=l3", json=_body())
    assert wrong.status_code == 422 and "norm" in wrong.text
    schema = httpx.get(f"{server.url}/openapi.json").json()["paths"]["/magnitude"]["post"]
    assert "norm" in [parameter["name"] for parameter in schema["parameters"]]


def test_the_task_runs_as_a_job(server: Server, lengths: NDArray[np.float32]) -> None:
    job = httpx.post(f"{server.url}/magnitude", json=_body(), headers=JSON | {"Prefer": "respond-async"})
    assert job.status_code == 202, job.text
    url = f"{server.url}{job.headers['location']}"
    ends = time.monotonic() + 60
    while (state := httpx.get(url).json()["state"]) not in ("succeeded", "failed") and time.monotonic() < ends:
        time.sleep(0.05)
    assert state == "succeeded", httpx.get(url).text
    _close(httpx.get(f"{url}/result", follow_redirects=True).json()["values"], lengths)


def test_the_task_is_an_output_of_the_open_inference_protocol(server: Server, lengths: NDArray[np.float32]) -> None:
    body, model = _body(), httpx.get(f"{server.url}/models").json()["models"][0]["name"]
    types = {"indptr": "INT64", "indices": "INT32", "data": "FP32", "genes": "BYTES"}
    inputs = [{"name": n, "datatype": t, "shape": [len(body[n])], "data": body[n]} for n, t in types.items()]  # type: ignore[arg-type]
    request = {"inputs": inputs, "outputs": [{"name": "magnitude"}]}
    answer = httpx.post(f"{server.url}/v2/models/{model}/infer", json=request)
    assert answer.status_code == 200, answer.text
    (output,) = answer.json()["outputs"]
    assert output["shape"] == [2, 1]
    _close(np.reshape(output["data"], (2, 1)), lengths)
    named = [output["name"] for output in httpx.get(f"{server.url}/v2/models/{model}").json()["outputs"]]
    assert "magnitude" in named


def test_the_task_is_a_command(extended: Extended, lengths: NDArray[np.float32]) -> None:
    path = extended.folder / "cells.h5ad"
    data = anndata.AnnData(sparse.csr_matrix(COUNTS))
    data.var_names, data.obs_names = GENES, ["a", "b"]
    data.write_h5ad(path)
    assert "--norm" in extended.run("magnitude", "--help")
    extended.run("magnitude", str(path), "-o", "out.h5ad", "--bundle", str(BUNDLE))
    _close(anndata.read_h5ad(extended.folder / "out.h5ad").obsm["X_scpalm_magnitude"], lengths)


@needs_redis
def test_the_task_runs_through_redis(extended: Extended, lengths: NDArray[np.float32], tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "data").start()
    settings = {"redis_url": redis.url, "spool_dir": str(tmp_path), "cwd": str(tmp_path)}
    try:
        with pytest.MonkeyPatch.context() as patch, starter(tmp_path) as start:
            patch.setenv("PYTHONPATH", str(extended.code))
            worker, service = start(command="worker", **settings), start(**settings)
            worker.wait_until_ready()
            answer = httpx.post(f"{service.wait_until_ready().url}/magnitude", json=_body(), headers=JSON)
            assert answer.status_code == 200, answer.text
            _close(answer.json()["values"], lengths)
    finally:
        redis.stop()


def test_the_format_is_read_and_written(server: Server, lengths: NDArray[np.float32]) -> None:
    table = "\n".join("\t".join(map(str, row)) for row in [GENES, *COUNTS.tolist()])
    headers = {"Content-Type": TSV, "Accept": TSV}
    answer = httpx.post(f"{server.url}/magnitude", content=table, headers=headers)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, TSV), answer.text
    _close([line.split("\t") for line in answer.text.splitlines()], lengths)
    bad = httpx.post(f"{server.url}/embed", content=table.replace("9.0", "nine"), headers=headers)
    assert bad.status_code == 422 and "nine" in bad.text
    body = httpx.get(f"{server.url}/openapi.json").json()["paths"]["/embed"]["post"]["requestBody"]
    assert TSV in body["content"]


def test_the_transport_carried_every_item(server: Server, lengths: NDArray[np.float32], extended: Extended) -> None:
    journal = extended.folder / "journal"
    before = journal.read_text()
    httpx.post(f"{server.url}/magnitude?also=embed", json=_body()).raise_for_status()
    assert journal.read_text().removeprefix(before) == "2 magnitude embed\n"
