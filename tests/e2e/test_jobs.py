"""A job survives its server: after a kill and a restart, the result equals that of an undisturbed run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import httpx
import numpy as np

from scpalm.app.jobs.store import CHUNK_ROWS
from tests.e2e.conftest import Server
from tests.e2e.test_serve import H5AD


def test_a_job_survives_kill_9(start_server: Callable[..., Server], cells: Path, tmp_path: Path) -> None:
    one = anndata.read_h5ad(cells)[:, :2000].copy()
    many = anndata.concat([one] * 30, index_unique="-")
    many.write_h5ad(tmp_path / "many.h5ad")
    settings = {"results_dir": str(tmp_path / "results")}
    server = start_server(**settings).wait_until_ready()
    with (tmp_path / "many.h5ad").open("rb") as file:
        headers = {"Content-Type": H5AD, "Prefer": "respond-async", "Accept": "application/x-npy"}
        answer = httpx.post(f"{server.url}/embed", content=file, headers=headers, timeout=60)
    assert answer.status_code == 202, answer.text
    location = answer.headers["location"]
    ends = time.monotonic() + 120
    while (state := httpx.get(f"{server.url}{location}").json())["rows_done"] < CHUNK_ROWS:
        assert time.monotonic() < ends and state["state"] in ("queued", "running"), state
        time.sleep(0.02)
    # A backup of the running service is one that another service can continue from.
    copied = scpalm("jobs", "--backup", str(tmp_path / "backup"), **settings)
    assert copied.returncode == 0 and "1 jobs" in copied.stderr, copied.stderr
    again_there = scpalm("jobs", "--backup", str(tmp_path / "backup"), **settings)
    assert again_there.returncode == 1 and again_there.stderr.count("\n") == 1
    server.stop(signal.SIGKILL)
    assert state["state"] == "running" and state["rows_done"] < many.n_obs

    again = start_server(**settings).wait_until_ready()
    (tmp_path / "job.npy").write_bytes(result_of(f"{again.url}{location}"))
    restored = start_server(results_dir=str(tmp_path / "backup")).wait_until_ready()
    (tmp_path / "restored.npy").write_bytes(result_of(f"{restored.url}{location}"))
    with (tmp_path / "many.h5ad").open("rb") as file:
        headers = {"Content-Type": H5AD, "Accept": "application/x-npy"}
        (tmp_path / "once.npy").write_bytes(
            httpx.post(f"{again.url}/embed", content=file, headers=headers, timeout=120).content
        )
    np.testing.assert_array_equal(np.load(tmp_path / "job.npy"), np.load(tmp_path / "once.npy"))
    np.testing.assert_array_equal(np.load(tmp_path / "restored.npy"), np.load(tmp_path / "once.npy"))


def result_of(job: str) -> bytes:
    """The result of a job, once it has succeeded."""
    with httpx.stream("GET", f"{job}/events", timeout=120) as events:
        *_, last = events.read().decode().strip().split("\n\n")
    assert '"state":"succeeded"' in last
    result = httpx.get(f"{job}/result", timeout=60)
    assert result.headers["content-type"] == "application/x-npy"
    return result.content


def scpalm(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SCPALM_")}
    environment |= {f"SCPALM_{name.upper()}": value for name, value in settings.items()}
    command = [sys.executable, "-m", "scpalm.app.cli", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
