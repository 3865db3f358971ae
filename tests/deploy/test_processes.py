"""Run the steps of the Dockerfile in a clean virtual environment, and the services of compose as processes.

Slow: run with -m slow.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import httpx
import numpy as np
import pytest

from scpalm.model.bundle import Bundle
from tests.bench.bench_service import as_json, real_cells, take
from tests.deploy.image import build
from tests.deploy.show_dashboard import run
from tests.deploy.stack import Stack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("cpu"), "cpu")


def imports(bin: Path, module: str) -> bool:
    # Run outside the source tree, so that the installed package is used.
    return (
        subprocess.run([bin / "python", "-c", f"import {module}"], cwd="/", capture_output=True, check=False).returncode
        == 0
    )


def embedded(url: str) -> np.ndarray:
    cells, _ = real_cells(Bundle.load())
    answer = httpx.post(
        f"{url}/embed", content=as_json(take(cells, 0, 8)), headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.status_code == 200, answer.text
    return np.array(answer.json()["values"], dtype=np.float32)


def test_the_cpu_image_serves_and_stops_in_order(bin: Path, tmp_path: Path) -> None:
    assert imports(bin, "onnxruntime") and not imports(bin, "torch") and not imports(bin, "pytest")
    with Stack(["single"], tmp_path, bin) as stack:
        values = embedded(stack.url("single-0"))
        assert stack.stop("single-0") == 0
    assert values.shape[0] == 8 and '"level"' in stack.log("single-0"), "the image logs JSON"


def test_the_api_image_has_no_model_runtime(tmp_path: Path) -> None:
    bin = build(tmp_path, "")
    assert not imports(bin, "onnxruntime") and not imports(bin, "torch")
    assert subprocess.run([bin / "scpalm", "--version"], cwd="/", capture_output=True, check=False).returncode == 0


def test_api_and_workers_give_the_results_of_one_process_and_stop_in_order(bin: Path, tmp_path: Path) -> None:
    with Stack(["single"], tmp_path, bin) as stack:
        alone = embedded(stack.url("single-0"))
    with Stack(["redis", "worker-cpu", "worker-cpu", "api"], tmp_path, bin) as stack:
        np.testing.assert_array_equal(embedded(stack.url("api-0")), alone)
        assert [stack.stop(name) for name in ("api-0", "worker-cpu-0", "worker-cpu-1")] == [0, 0, 0]


def test_no_panel_of_the_dashboard_is_empty(tmp_path: Path) -> None:
    assert run(45, tmp_path, None) == []
