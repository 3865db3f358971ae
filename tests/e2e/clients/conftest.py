"""Clients generated from the description that a running service gives, once for all tests."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import anndata
import httpx
import numpy as np
import pytest
from scipy import sparse

from tests.e2e.conftest import Server

FOLDER = Path(__file__).parent
NODE_MODULES = FOLDER / "node_modules"
# The generator knows no other name for a body of bytes.
PYTHON_OPTIONS = {
    "package_name_override": "scpalm_generated",
    "content_type_overrides": {
        "application/x-hdf5": "application/octet-stream",
        "application/vnd.apache.arrow.stream": "application/octet-stream",
    },
    "post_hooks": [],
}
NUM_CELLS = 3


@pytest.fixture(scope="session")
def description(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file openapi.json of the service."""
    path = tmp_path_factory.mktemp("description") / "openapi.json"
    path.write_bytes(httpx.get(f"{server.url}/openapi.json").raise_for_status().content)
    return path


@pytest.fixture(scope="session")
def sparse_cells(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first cells of the h5ad file as JSON."""
    data = anndata.read_h5ad(cells)[:NUM_CELLS]
    counts = sparse.csr_matrix(data.X)
    body = {
        "genes": list(data.var_names),
        "obs_names": list(data.obs_names),
        "indptr": counts.indptr.tolist(),
        "indices": counts.indices.tolist(),
        "data": counts.data.tolist(),
    }
    path = tmp_path_factory.mktemp("json") / "cells.json"
    path.write_text(json.dumps(body))
    return path


@pytest.fixture(scope="session")
def python_client(description: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of the generated Python client. Generating it gave no warning."""
    pytest.importorskip("openapi_python_client", reason="openapi-python-client is not installed")
    folder = tmp_path_factory.mktemp("python")
    options = folder / "options.json"
    options.write_text(json.dumps(PYTHON_OPTIONS))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", str(description), "--meta", "none"]
    command += ["--config", str(options), "--output-path", str(folder / "scpalm_generated"), "--fail-on-warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "warning" not in (done.stdout + done.stderr).lower(), done.stdout + done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield lambda name: importlib.import_module(f"scpalm_generated.{name}")


@pytest.fixture(scope="session")
def typescript_client(description: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled `use.ts`, with the generated TypeScript client that it uses. Neither step gave a warning."""
    if shutil.which("node") is None or not NODE_MODULES.is_dir():
        pytest.skip("node or its packages are not installed: cd tests/e2e/clients && npm ci")
    folder = tmp_path_factory.mktemp("typescript")
    (folder / "node_modules").symlink_to(NODE_MODULES)
    for name in ("use.ts", "tsconfig.json"):
        shutil.copyfile(FOLDER / name, folder / name)
    generate = ["node_modules/@hey-api/openapi-ts/bin/run.js", "-i", str(description), "-o", "client", "--no-log-file"]
    for command in (generate, ["node_modules/typescript/bin/tsc", "-p", "."]):
        done = subprocess.run(["node", *command], cwd=folder, capture_output=True, text=True, check=False)
        output = done.stdout + done.stderr
        assert done.returncode == 0 and "warn" not in output.lower(), output
    return folder / "built" / "use.js"


@pytest.fixture(scope="session")
def expected(server: Server, sparse_cells: Path) -> dict[str, np.ndarray]:
    """What the service answers to plain requests: the embedding, and ln IC50 of cisplatin with its bounds."""
    body = json.loads(sparse_cells.read_text())
    embedded = httpx.post(f"{server.url}/embed", json=body).raise_for_status().json()
    drug = httpx.post(f"{server.url}/ic50", json={**body, "drugs": ["Cisplatin"]}).raise_for_status().json()
    bounds = [drug["values"], drug["ic50_lower"]["values"], drug["ic50_upper"]["values"]]
    return {"embedding": np.array(embedded["values"]), "ic50": np.array([rows[0][0] for rows in bounds])}
