"""A service and a worker connected by Redis give the same bytes as a single process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import anndata
import httpx
import pytest

from tests.e2e.conftest import BUNDLE, Server, starter
from tests.e2e.test_serve import H5AD, as_json
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis
NPY = {"Accept": "application/x-npy"}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    folder = tmp_path_factory.mktemp("redis")
    redis = RedisServer(folder / "data").start()
    (folder / "spool").mkdir()
    settings = {"redis_url": redis.url, "spool_dir": str(folder / "spool"), "drain_seconds": "0"}
    try:
        with starter(folder) as start:
            worker = start(command="worker", **settings)
            service = start(**settings).wait_until_ready()
            yield service, worker.wait_until_ready()
            assert [server.stop() for server in (service, worker)] == [0, 0]
            left = [path for path in (folder / "spool" / "scpalm-spool").rglob("*") if path.is_file()]
            assert left == [], "payloads are left behind"
    finally:
        redis.stop()


@pytest.mark.parametrize(
    "path",
    [
        "/embed",
        "/impute?genes=CD3D,NKG7",
        "/impute?scale=counts",
        "/pathways",
        "/pathways?summary=true",
        "/ic50?drugs=Cisplatin",
        "/ic50?drugs=CC(C)O&drugs=Erlotinib",
    ],
)
def test_every_output_has_the_same_bytes_as_in_one_process(
    pair: tuple[Server, Server], server: Server, cells: Path, path: str
) -> None:
    body = as_json(anndata.read_h5ad(cells)[:20].copy())
    answers = [httpx.post(f"{s.url}{path}", json=body, headers=NPY, timeout=60) for s in (pair[0], server)]
    assert [answer.status_code for answer in answers] == [200, 200], [answer.text[:300] for answer in answers]
    assert answers[0].content == answers[1].content


def test_several_results_and_optional_inputs_pass_through_redis(
    pair: tuple[Server, Server], server: Server, cells: Path
) -> None:
    body = as_json(anndata.read_h5ad(cells)[:5].copy())
    optional = {**body, "drugs": ["Cisplatin"], "mutation": {"genes": ["TP53"], "values": [[1], [0], [-1], [1], [0]]}}
    for path, sent in (("/embed?also=pathways,impute&genes=LYZ", body), ("/ic50", optional)):
        answers = [httpx.post(f"{s.url}{path}", json=sent, timeout=60) for s in (pair[0], server)]
        assert answers[0].status_code == 200, answers[0].text
        results = [answer.json() for answer in answers]
        assert results[0] == results[1]


def test_a_large_file_passes_through_the_spool(pair: tuple[Server, Server], server: Server, cells: Path) -> None:
    many = anndata.concat([anndata.read_h5ad(cells)] * 4, index_unique="-")
    path = cells.parent / "many.h5ad"
    many.write_h5ad(path)
    for route in ("/embed", "/impute"):
        answers = []
        for s in (pair[0], server):
            with path.open("rb") as file:
                answers.append(
                    httpx.post(f"{s.url}{route}", content=file, headers={"Content-Type": H5AD, **NPY}, timeout=120)
                )
        assert answers[0].status_code == 200, answers[0].text
        assert answers[0].content == answers[1].content


def test_the_service_loads_no_model_runtime(pair: tuple[Server, Server]) -> None:
    loaded = [Path(f"/proc/{server.process.pid}/maps").read_text() for server in pair]
    assert "onnxruntime" in loaded[1], "otherwise this test proves nothing"
    assert "onnxruntime" not in loaded[0] and "libtorch" not in loaded[0]
    assert httpx.get(f"{pair[0].url}/models").json()["models"][0]["device"] == "cpu"


WITHOUT_RUNTIME = """
import asyncio, json, sys
for name in ("torch", "onnxruntime"):
    sys.modules[name] = None  # importing it would fail
from scpalm.app.main import create_app
from scpalm.app.settings import load_settings

async def main():
    app = create_app(load_settings())
    async with app.router.lifespan_context(app):
        service = app.state.service
        await service.settled.wait()
        try:
            service.ready_model()
        except Exception as error:
            print(error)

asyncio.run(main())
print(sorted(name for name in sys.modules if name.partition(".")[0] in ("torch", "onnxruntime") and sys.modules[name]))
"""


def test_a_service_starts_without_torch_and_onnxruntime(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "data").start()
    try:
        environment = {"SCPALM_REDIS_URL": redis.url, "SCPALM_SPOOL_DIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_RUNTIME],
            env={**environment, "SCPALM_BUNDLE": str(BUNDLE)},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        redis.stop()
    assert done.returncode == 0, done.stderr
    why, loaded = done.stdout.splitlines()
    assert "No worker of the model" in why and "scpalm worker" in why
    assert json.loads(loaded) == []
