"""One function per place and fault: what the client saw, and what was left. Each uses a real process and real disks."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import anndata
import httpx
import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]
from scipy import sparse

from scpalm.model.bundle import Bundle
from tests.chaos.cluster import Json, cells, wait_until
from tests.chaos.site import ASYNC, Site
from tests.e2e.conftest import BUNDLE


@dataclass(frozen=True)
class Seen:
    """A row of the table.

    Attributes:
        client: what the client saw.
        left: what was left afterwards.
    """

    client: str
    left: str


Place = Callable[[Site], Seen]
H5AD = "application/x-hdf5"
PLACES: dict[tuple[str, str], Place] = {}
NOTHING = "nothing"


def place(where: str, fault: str) -> Callable[[Place], Place]:
    """Register a row of the table."""

    def add(function: Place) -> Place:
        PLACES[where, fault] = function
        return function

    return add


def _told(answer: httpx.Response, status: int, words: str = "") -> str:
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json" and words in problem["detail"], problem
    return f"{status} {problem['type'].rpartition(':')[2]}"


def _h5ad(number: int) -> bytes:
    """An h5ad file of seeded counts, some megabytes for 500 cells."""
    genes = Bundle.load(BUNDLE).vocabulary.symbols[:2000]
    data = anndata.AnnData(sparse.csr_matrix(np.random.default_rng(0).poisson(0.5, (number, len(genes))), dtype="f4"))
    data.obs_names, data.var_names = [f"cell{n}" for n in range(number)], genes
    with tempfile.TemporaryDirectory() as folder:
        data.write_h5ad(Path(folder) / "cells.h5ad")
        return (Path(folder) / "cells.h5ad").read_bytes()


def _refused_while_full(site: Site, send: Callable[[], httpx.Response], words: str) -> Seen:
    """Send a request while a disk is full, then again when there is room."""
    seen = _told(send(), 507, words)
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
    body = _h5ad(500)
    site.spool.fill()
    return _refused_while_full(site, lambda: site.post("/embed", body, **{"Content-Type": H5AD}), "SCPALM_SPOOL_DIR")


@place("upload", "disk full midway")
def upload_full_midway(site: Site) -> Seen:
    site.start()
    body = _h5ad(500)
    site.spool.fill(leave=len(body) // 2)
    return _refused_while_full(site, lambda: site.post("/embed", body, **{"Content-Type": H5AD}), "SCPALM_SPOOL_DIR")


@place("form upload", "disk full midway")
def form_full_midway(site: Site) -> Seen:
    site.start()
    body = _h5ad(500)
    site.spool.fill(leave=len(body) // 2)

    def send() -> httpx.Response:
        return httpx.post(f"{site.service.url}/embed", files={"file": ("cells.h5ad", body)}, timeout=60)

    return _refused_while_full(site, send, "SCPALM_SPOOL_DIR")


@place("decompressed upload", "disk full midway")
def decompressed_full_midway(site: Site) -> Seen:
    site.start()
    body = _h5ad(500)
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
    body = _h5ad(500)
    # Room for the upload, and for half of the answer, which is a copy of it.
    site.spool.fill(leave=len(body) * 3 // 2)
    return _refused_while_full(site, lambda: site.post("/embed", body, **{"Content-Type": H5AD}), "SCPALM_SPOOL_DIR")


def _job_body(site: Site, leave: int) -> Seen:
    site.start()
    body = cells(1000)
    site.results.fill(leave=leave)
    seen = _told(site.post("/embed", body, **ASYNC), 507, "SCPALM_RESULTS_DIR")
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
    refused = _told(site.post("/embed", cells(40), **ASYNC), 507)
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
    refused = _told(site.post("/embed", cells(40), **ASYNC), 503, "locked")
    backup.execute("ROLLBACK")
    backup.close()
    site.finish(running)
    site.finish(queued)
    site.assert_well()
    # A generous bound, because the machine may be busy. The loop stood still for 10 s.
    assert slowest < 1.5, slowest
    return Seen(f"reads answered; new jobs: {refused}; both jobs succeeded later; ready: 503 naming jobs", NOTHING)


# --- killed parts


def _parsers(site: Site) -> list[psutil.Process]:
    children = psutil.Process(site.service.process.pid).children()
    found = []
    for child in children:
        with suppress(psutil.Error):  # it ended meanwhile
            if "scpalm.app.parsing.child" in " ".join(child.cmdline()):
                found.append(child)
    return found


@place("parser", "kill -9 while it reads")
def parser_killed(site: Site) -> Seen:
    site.start()
    body = cells(8)
    expected = site.post("/embed", body).json()["values"]
    (parser,) = _parsers(site)
    parser.suspend()
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(site.post("/embed", body)))
    asking.start()
    time.sleep(0.5)  # the upload has reached the suspended process, or will reach a new one
    parser.kill()
    asking.join()
    assert answers[0].status_code == 200 and answers[0].json()["values"] == expected
    site.assert_well()
    return Seen("200, the same values", NOTHING)


@place("parser", "kill -9 again and again")
def parser_killed_for_ever(site: Site) -> Seen:
    site.start()
    (parser,) = _parsers(site)
    parser.suspend()
    answers: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: answers.append(site.post("/embed", cells(8))))
    asking.start()
    time.sleep(0.5)
    while asking.is_alive():
        for child in _parsers(site):
            with suppress(psutil.Error):
                child.kill()
        time.sleep(0.02)
    seen = _told(answers[0], 503, "not at fault")
    assert answers[0].headers["retry-after"]
    wait_until(lambda: site.post("/embed", cells(8)).status_code == 200)
    site.assert_well()
    return Seen(f"{seen} with Retry-After", NOTHING)


@place("spool of a killed service", "kill -9, then a restart")
def killed_and_restarted(site: Site) -> Seen:
    service = site.start()
    site.hold.touch()
    body = _h5ad(500)
    asking = threading.Thread(target=lambda: suppress_errors(site, body))
    asking.start()
    wait_until(lambda: service.metric("queue_rows") > 0)
    assert [path for path in site.spool.path.rglob("*") if path.is_file() and not path.name.endswith("-lock")]
    service.stop(signal.SIGKILL)
    asking.join()
    site.hold.unlink()
    site.start()
    wait_until(lambda: len(list(site.spool.path.glob("scpalm-process-*/"))) == 1)
    site.assert_well()
    assert site.post("/embed", body, **{"Content-Type": H5AD}).status_code == 200
    site.assert_well()
    return Seen("connection broken; 200 after the restart", NOTHING)


def suppress_errors(site: Site, body: bytes) -> None:
    """Send a request whose service is killed."""
    with suppress(httpx.HTTPError):
        site.post("/embed", body, **{"Content-Type": H5AD})


# --- ends


@place("events stream", "SIGTERM")
def events_while_stopping(site: Site) -> Seen:
    service = site.start()
    site.hold.touch()
    location, queued = site.job(cells(30)), site.job(cells(30, seed=1))
    wait_until(lambda: site.state(location) == "running")
    text = b""
    with httpx.stream("GET", f"{service.url}{location}/events", timeout=60) as events:
        chunks = events.iter_bytes()
        text += next(chunks)
        started = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        site.hold.unlink()  # the batch ends, but no job may be taken up
        for chunk in chunks:
            text += chunk
    assert b"event: draining" in text, text
    assert service.process.wait(30) == 0, service.log.read_text()
    seconds = time.monotonic() - started
    site.start()
    for job in (location, queued):
        site.finish(job)
    site.assert_well()
    assert "Traceback" not in service.log.read_text()
    return Seen(f"`event: draining`; exit 0 after {seconds:.0f} s; both jobs finished after the restart", NOTHING)


@place("requests in flight", "a second SIGTERM")
def second_signal(site: Site) -> Seen:
    service = site.start()
    site.hold.touch()
    answers: list[httpx.Response | Exception] = []

    def ask() -> None:
        try:
            answers.append(site.post("/embed", cells(8)))
        except httpx.HTTPError as error:
            answers.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    # A metric is a second old at most.
    wait_until(lambda: service.metric("queue_rows") > 0)
    service.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "draining" in service.log.read_text())
    service.process.send_signal(signal.SIGTERM)
    asking.join()
    answer = answers[0]
    assert isinstance(answer, httpx.Response), repr(answer)
    seen = _told(answer, 503, "stopped")
    assert answer.headers["connection"] == "close" and answer.headers["retry-after"]
    site.hold.unlink()
    status = service.process.wait(30)
    log = service.log.read_text()
    assert status == 1 and "Traceback" not in log and "second signal" in log, log
    left = [path.name for path in site.spool.path.iterdir()]
    assert not left, left
    return Seen(f"{seen}; exit status {status}", NOTHING)


__all__ = ["PLACES", "Json", "Place", "Seen"]
