"""Full disks, and a locked ledger."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import time
from collections.abc import Callable

import httpx

from scpalm.model.bundle import Bundle
from tests.chaos.cluster import cells, wait_until
from tests.chaos.places.place import H5AD, NOTHING, Seen, h5ad, place, problem_of
from tests.chaos.site import ASYNC, Site
from tests.e2e.conftest import BUNDLE


def _refused_while_full(site: Site, send: Callable[[], httpx.Response], words: str) -> Seen:
    """Send a request while a disk is full, then again when there is room."""
    seen = problem_of(send(), 507, words)
    assert int(send().headers["retry-after"]) > 0
    assert site.post("/embed", cells(2)).status_code == 200, "small requests need no disk"
    assert not site.left(), site.left()
    site.spool.free()
    answer = send()
    assert answer.status_code == 200, answer.text
    site.assert_well()
    return Seen(f"{seen}; 200 when there was room", NOTHING)


# --- full disks


@place("upload", "disk full at the start")
def upload_full_at_start(site: Site) -> Seen:
    site.start()
    body = h5ad(500)
    site.spool.fill()
    return _refused_while_full(site, lambda: site.post("/embed", body, **{"Content-Type": H5AD}), "SCPALM_SPOOL_DIR")


@place("upload", "disk full midway")
def upload_full_midway(site: Site) -> Seen:
    site.start()
    body = h5ad(500)
    site.spool.fill(leave=len(body) // 2)
    return _refused_while_full(site, lambda: site.post("/embed", body, **{"Content-Type": H5AD}), "SCPALM_SPOOL_DIR")


@place("form upload", "disk full midway")
def form_full_midway(site: Site) -> Seen:
    site.start()
    body = h5ad(500)
    site.spool.fill(leave=len(body) // 2)

    def send() -> httpx.Response:
        return httpx.post(f"{site.service.url}/embed", files={"file": ("cells.h5ad", body)}, timeout=60)

    return _refused_while_full(site, send, "SCPALM_SPOOL_DIR")


@place("decompressed upload", "disk full midway")
def decompressed_full_midway(site: Site) -> Seen:
    site.start()
    body = h5ad(500)
    packed = gzip.compress(body)
    site.spool.fill(leave=len(packed) + len(body) // 2)
    headers = {"Content-Type": H5AD, "Content-Encoding": "gzip"}
    return _refused_while_full(site, lambda: site.post("/embed", packed, **headers), "SCPALM_SPOOL_DIR")


def _large_result(site: Site, leave: int) -> Seen:
    site.start()
    # Over 16 MB of values, and the answer is as large.
    body = cells((20 << 20) // (4 * len(Bundle.load(BUNDLE).vocabulary)))
    site.spool.fill(leave=leave)

    def send() -> httpx.Response:
        return site.post("/impute", body, Accept="application/x-npy")

    return _refused_while_full(site, send, "SCPALM_SPOOL_DIR")


@place("result over 16 MB", "disk full at the start")
def result_full_at_start(site: Site) -> Seen:
    return _large_result(site, 0)


@place("result over 16 MB", "disk full midway")
def result_full_midway(site: Site) -> Seen:
    return _large_result(site, 8 << 20)


@place("h5ad answer", "disk full midway")
def answer_full_midway(site: Site) -> Seen:
    site.start()
    body = h5ad(500)
    # Room for the upload, and for half of the answer, which is a copy of it.
    site.spool.fill(leave=len(body) * 3 // 2)
    return _refused_while_full(site, lambda: site.post("/embed", body, **{"Content-Type": H5AD}), "SCPALM_SPOOL_DIR")


def _job_body(site: Site, leave: int) -> Seen:
    site.start()
    body = cells(1000)
    site.results.fill(leave=leave)
    seen = problem_of(site.post("/embed", body, **ASYNC), 507, "SCPALM_RESULTS_DIR")
    assert httpx.get(f"{site.service.url}/jobs").json()["jobs"] == []
    assert not site.left(), site.left()
    assert site.post("/embed", cells(2)).status_code == 200
    site.results.free()
    site.finish(site.job(body))
    site.assert_well()
    return Seen(f"{seen}; 202 when there was room", NOTHING)


@place("body of a job", "disk full at the start")
def job_body_full_at_start(site: Site) -> Seen:
    return _job_body(site, 0)


@place("body of a job", "disk full midway")
def job_body_full_midway(site: Site) -> Seen:
    return _job_body(site, 200_000)


@place("results and ledger of running jobs", "disk full for 5 s")
def job_results_full(site: Site) -> Seen:
    site.start()
    site.hold.touch()
    running, queued = site.job(cells(3000)), site.job(cells(30, seed=1))
    wait_until(lambda: site.state(running) == "running")
    site.results.fill()
    site.hold.unlink()
    wait_until(lambda: site.ready().startswith("503 Background tasks"), 30, site.ready)
    reason = site.ready()
    assert "jobs: " in reason and "full" in reason
    refused = problem_of(site.post("/embed", cells(40), **ASYNC), 507)
    time.sleep(5.0)
    assert (site.state(running), site.state(queued)) == ("running", "queued")
    site.results.free()
    site.finish(running)
    site.finish(queued)
    site.assert_well()
    return Seen(f"both jobs succeeded later; ready: 503 naming jobs; new ones: {refused}", NOTHING)


@place("model that arrives", "disk full midway")
def model_full_midway(site: Site) -> Seen:
    models = site.folder / "models"
    models.mkdir()
    site.start(models_dir=str(models))
    site.spool.fill(leave=1 << 20)
    shutil.copytree(BUNDLE, models / "second")
    manifest = json.loads((models / "second" / "manifest.json").read_text())
    (models / "second" / "manifest.json").write_text(json.dumps({**manifest, "name": "second"}))

    def reasons() -> str:
        return " ".join(
            refused["reason"] for refused in httpx.get(f"{site.service.url}/models").json().get("refused", [])
        )

    wait_until(reasons, 30)
    reason = reasons()
    assert "no room" in reason, reason
    assert not list(site.spool.path.glob("*/scpalm-model-*/*")), "half a copy was left"
    site.spool.free()
    wait_until(lambda: httpx.get(f"{site.service.url}/models/second").status_code == 200, 60)
    return Seen("refused with the reason; served when there was room", NOTHING)


# --- the ledger


@place("ledger", "locked for 5 s by a backup")
def ledger_locked(site: Site) -> Seen:
    site.start()
    site.hold.touch()
    running, queued = site.job(cells(30)), site.job(cells(30, seed=1))
    wait_until(lambda: site.state(running) == "running")
    backup = sqlite3.connect(site.results.path / "jobs.sqlite", isolation_level=None)
    backup.execute("BEGIN EXCLUSIVE")
    site.hold.unlink()
    slowest, ends = 0.0, time.monotonic() + 5.0
    while time.monotonic() < ends:
        started = time.monotonic()
        assert httpx.get(f"{site.service.url}/health/live").status_code == 200
        assert site.state(running) == "running"
        slowest = max(slowest, time.monotonic() - started)
    assert "locked" in site.ready()
    refused = problem_of(site.post("/embed", cells(40), **ASYNC), 503, "locked")
    backup.execute("ROLLBACK")
    backup.close()
    site.finish(running)
    site.finish(queued)
    site.assert_well()
    # A generous bound, because the machine may be busy. The loop stood still for 10 s.
    assert slowest < 1.5, slowest
    return Seen(f"reads answered; new jobs: {refused}; both jobs succeeded later; ready: 503 naming jobs", NOTHING)
