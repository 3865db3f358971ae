"""Two releases or two models at once on one Redis, as in a rolling upgrade. See `tests.chaos.cases` for the form."""

from __future__ import annotations

import json
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import httpx

from scpalm.app.queue import wire
from scpalm.model.bundle import DEFAULT_BUNDLE
from tests.chaos.cases import Case, Row
from tests.chaos.cluster import Cluster, Load, Process, ask, cells, wait_until

OLD_WIRE = wire.VERSION - 1


def _start(cluster: Cluster, *processes: tuple[str, int]) -> list[Process]:
    """Start services and workers at the same time, each with a version of the message format."""

    def start(what: tuple[str, int]) -> Process:
        command, version = what
        return cluster.start(command, wait=command == "worker", wire=str(version))

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(start, processes))


def _is_ready(service: Process) -> bool:
    return httpx.get(f"{service.url}/health/ready").status_code == 200


def release_upgraded(cluster: Cluster, size: int) -> Row:
    """A release with another message format replaces the old one under load; from size 2 it is rolled back, too."""
    old, new = OLD_WIRE, wire.VERSION
    service, later_worker = _start(cluster, ("serve", old), ("worker", new))
    answer = ask(service, cells(1))
    assert answer.status_code == 503 and "No worker" in answer.json()["detail"], answer.text
    later_service, worker = _start(cluster, ("serve", new), ("worker", old))
    wait_until(lambda: _is_ready(service) and _is_ready(later_service))
    with Load([service.url], clients=2 * size) as load:
        seconds = _replace(load, (service, worker), (later_service, later_worker), size)
        if size > 1:
            service, worker = _start(cluster, ("serve", old), ("worker", old))
            wait_until(lambda: _is_ready(service))
            _replace(load, (later_service, later_worker), (service, worker), size)
    assert load.lost() == 0, [answer for answer in load.answers if answer[0] != 200]
    cluster.assert_nothing_left()
    return Row(f"{load.statuses[200]} requests, none failed", seconds, load.lost(), cluster.duplicated())


def _replace(load: Load, before: tuple[Process, Process], after: tuple[Process, Process], size: int) -> float:
    """Move the load from one release to the other, then stop the first. Returns the seconds of stopping it."""
    load.move(before[0].url, after[0].url)
    answered = len(load.answers)
    wait_until(lambda: len(load.answers) > answered + 20 * size)
    values = [ask(service, cells(3)).json()["values"] for service, _ in (before, after)]
    assert values[0] == values[1], "both releases answer, side by side"
    load.move(after[0].url)  # as a load balancer does before it stops a service
    started = time.monotonic()
    assert [process.stop(signal.SIGTERM) for process in before] == [0, 0]
    return time.monotonic() - started


def model_swapped(cluster: Cluster, size: int) -> Row:
    """The model is replaced and put back under load; one worker sees the change before the service, one after it."""
    folder = cluster.folder / "bundles"
    for version in ("1", "2"):
        shutil.copytree(DEFAULT_BUNDLE, folder / version)
        manifest = folder / version / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": version}))
    (folder / "current").symlink_to("1")
    cluster.settings |= {"bundle": str(folder / "current"), "reload_seconds": "0.5"}
    (service,) = cluster.services()
    cluster.start("worker")
    cluster.settings["reload_seconds"] = "3"
    cluster.start("worker")
    wait_until(lambda: _is_ready(service))
    seconds = 0.0
    with Load([service.url], clients=2 * size) as load:
        for version in ("2", "1"):
            started = time.monotonic()
            (folder / "next").symlink_to(version)
            (folder / "next").replace(folder / "current")
            wait_until(lambda: ask(service, cells(1)).json()["model"]["version"] == version, 60)  # noqa: B023
            seconds = max(seconds, time.monotonic() - started)
            answered = len(load.answers)
            wait_until(lambda: len(load.answers) > answered + 20 * size)  # noqa: B023
    assert load.lost() == 0, [answer for answer in load.answers if answer[0] != 200][:3]
    cluster.assert_nothing_left()
    return Row(f"{load.statuses[200]} requests, none failed", seconds, load.lost(), cluster.duplicated())


UPGRADE_CASES: tuple[Case, ...] = (release_upgraded, model_swapped)
