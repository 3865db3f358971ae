"""Processes that are killed, and services that stop."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import suppress

import httpx
import psutil  # type: ignore[import-untyped, unused-ignore]

from tests.chaos.cluster import cells, wait_until
from tests.chaos.places.place import H5AD, NOTHING, Seen, h5ad, place, problem_of
from tests.chaos.site import Site

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
def parser_killed_again_and_again(site: Site) -> Seen:
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
    seen = problem_of(answers[0], 503, "not at fault")
    assert answers[0].headers["retry-after"]
    wait_until(lambda: site.post("/embed", cells(8)).status_code == 200)
    site.assert_well()
    return Seen(f"{seen} with Retry-After", NOTHING)


@place("spool of a killed service", "kill -9, then a restart")
def killed_and_restarted(site: Site) -> Seen:
    service = site.start()
    site.hold.touch()
    body = h5ad(500)
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
    seen = problem_of(answer, 503, "stopped")
    assert answer.headers["connection"] == "close" and answer.headers["retry-after"]
    site.hold.unlink()
    status = service.process.wait(30)
    log = service.log.read_text()
    assert status == 1 and "Traceback" not in log and "second signal" in log, log
    left = [path.name for path in site.spool.path.iterdir()]
    assert not left, left
    return Seen(f"{seen}; exit status {status}", NOTHING)
