"""Run the commands of app/README.md unchanged against a real server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import anndata
import numpy as np
import orjson
import pytest

from tests.e2e.conftest import Server
from tests.e2e.test_serve import StartServer

README = Path(__file__).parents[2] / "app" / "README.md"
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def commands() -> list[str]:
    text = README.read_text(encoding="utf-8")
    return text.split("```sh\n", 1)[1].split("```", 1)[0].strip().splitlines()


@needs_curl
def test_every_documented_command_works(start_server: StartServer, cells: Path, tmp_path: Path) -> None:
    if subprocess.run(["curl", "--url-query", "a=b", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("this curl is older than --url-query (7.87)")
    server: Server = start_server(results_dir=str(tmp_path / "jobs")).wait_until_ready()
    shutil.copyfile(cells, tmp_path / "cells.h5ad")
    lines = commands()
    assert len(lines) > 25
    place = urlsplit(server.url).netloc
    script = "set -euo pipefail\n" + "\n".join(
        f"echo 'line {number}' >&2\n{line} > out-{number}" for number, line in enumerate(lines)
    )
    script = script.replace("localhost:8000", place)
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    values = anndata.read_h5ad(tmp_path / "embedded.h5ad").obsm["X_scpalm"]
    assert values.shape[0] == 150 and np.isfinite(values).all()
    assert orjson.loads((tmp_path / "ic50.json").read_bytes())["shape"] == [150, 2]
    assert np.load(tmp_path / "ic50.npy").shape[0] == 150
    events = (tmp_path / f"out-{next(i for i, line in enumerate(lines) if 'events' in line)}").read_text()
    assert "succeeded" in events


def test_every_route_is_documented() -> None:
    from scpalm.app.main import create_app
    from scpalm.app.settings import Settings

    document = create_app(Settings()).openapi()
    text = "\n".join(commands()).replace("$JOB", "/jobs/{job_id}").replace("/models/mini", "/models/{name}")
    missing = [path for path in document["paths"] if path not in text and "versions" not in path]
    assert missing in ([], ["/v2/health/live", "/v2/health/ready", "/v2/models/{name}/ready"])
