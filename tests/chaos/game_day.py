"""Break a running deployment in seven ways, and check that the right alert fires and that the run book names the cause.

    python -m tests.chaos.game_day [FAULT ...]

Services, workers, Redis and Prometheus are real processes. In the rules a minute lasts a second. Prints a table.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.cluster import Cluster, Process, cells, cluster, in_background, wait_until
from tests.chaos.prometheus import Prometheus
from tests.deploy.files import DEPLOY
from tests.e2e.conftest import BUNDLE

MAX_QUEUED = 64
# An alert must fire within this time. Its windows and waits take up to 20 s.
PATIENCE_SECONDS = 60.0


@dataclass
class Deployment:
    """A service and two workers under a light load, watched by Prometheus.

    Attributes:
        between_requests: while it is held, no request of the load is in flight.
    """

    cluster: Cluster
    prometheus: Prometheus
    service: Process = field(init=False)
    workers: list[Process] = field(default_factory=list)
    between_requests: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)

    def file(self, name: str) -> Path:
        """The file with which a fault is switched on."""
        return self.cluster.folder / name

    @property
    def bundle(self) -> Path:
        """The folder of the served model."""
        return self.cluster.folder / "bundle"

    def start_service(self) -> None:
        """Start the service, wait until it is ready, and tell Prometheus."""
        self.service = self._start("serve")
        wait_until(lambda: httpx.get(f"{self.service.url}/health/ready").status_code == 200)
        self.watch()

    def start_workers(self) -> None:
        """Start workers until there are two, and tell Prometheus."""
        self.workers = [worker for worker in self.workers if worker.process.poll() is None]
        while len(self.workers) < 2:
            self.workers.append(self._start("worker"))
        self.watch()

    def _start(self, command: str) -> Process:
        files = {name: str(self.file(name)) for name in ("hold", "fail", "slow")}
        return self.cluster.start(command, wait=False, sleep="0.001", **files)

    def watch(self) -> None:
        """Name the processes to Prometheus."""
        self.prometheus.watch(
            {"scpalm-api": [self.service.url], "scpalm-worker": [worker.url for worker in self.workers]}
        )

    def load(self) -> None:
        """Send single cells until `stop`."""
        body = cells(1)
        with httpx.Client(timeout=5) as client:
            while not self._over.wait(0.02):
                with self.between_requests, suppress(httpx.HTTPError):
                    client.post(f"{self.service.url}/embed", json=body)

    def stop(self) -> None:
        """End the load."""
        self._over.set()


@dataclass(frozen=True)
class Fault:
    """One thing that breaks.

    Attributes:
        what: in words.
        alert: the alert that must fire.
        cause: what the section of that alert in the run book must name.
        broken: a context manager that breaks it, and repairs it at the end.
    """

    what: str
    alert: str
    cause: str
    broken: Callable[[Deployment], Iterator[None]]


def no_worker(made: Deployment) -> Iterator[None]:
    for worker in made.workers:
        worker.process.kill()
        worker.process.wait()
    yield
    made.start_workers()


def full_queue(made: Deployment) -> Iterator[None]:
    with made.between_requests:
        made.file("hold").touch()
        waiting, _ = in_background(made.service, cells(MAX_QUEUED))
        wait_until(lambda: made.cluster.num_leased() == 1)
    yield
    made.file("hold").unlink()
    waiting.join()


def refused_model(made: Deployment) -> Iterator[None]:
    genes = made.bundle / "genes.parquet"
    kept = genes.read_bytes()
    genes.write_bytes(kept[:-1])
    yield
    genes.write_bytes(kept)


def redis_down(made: Deployment) -> Iterator[None]:
    made.cluster.redis.kill()
    yield
    made.cluster.redis.start()


def failing_inference(made: Deployment) -> Iterator[None]:
    made.file("fail").touch()
    yield
    made.file("fail").unlink()


def slow_device(made: Deployment) -> Iterator[None]:
    made.file("slow").write_text("0.15")
    yield
    made.file("slow").unlink()


def no_service(made: Deployment) -> Iterator[None]:
    made.service.process.kill()
    made.service.process.wait()
    yield
    made.start_service()


FAULTS = (
    Fault("kill -9 of all workers", "ScpalmWorkerMissing", "137 means killed", no_worker),
    Fault("the device hangs, and the queue is full", "ScpalmQueueFull", "SCPALM_MAX_QUEUED_CELLS", full_queue),
    Fault("a damaged model is copied to the folder", "ScpalmModelRefused", "a checksum", refused_model),
    Fault("kill -9 of Redis", "ScpalmErrorBudgetBurnsFast", "503 because Redis is down", redis_down),
    Fault("inference raises an error", "ScpalmInferenceFails", "The model raised an error", failing_inference),
    Fault("the device takes 0.15 s more per batch", "ScpalmAnswerTimeBurnsFast", "a slow device", slow_device),
    Fault("kill -9 of the only service", "ScpalmApiDown", "No API process answers", no_service),
)


def section(alert: str) -> str:
    """The section of the run book of an alert; "" if there is none."""
    _, _, after = (DEPLOY / "RUNBOOK.md").read_text().partition(f"\n## {alert}\n")
    return " ".join(after.partition("\n## ")[0].split())


@dataclass(frozen=True)
class Outcome:
    """What one fault caused: the seconds until its alert fired, and the other alerts that fired by then."""

    seconds: float
    others: list[str]


def run_fault(made: Deployment, fault: Fault) -> Outcome:
    """Wait until the alert is quiet, break, wait for the alert, repair. Raises AssertionError."""
    prometheus = made.prometheus
    wait_until(lambda: fault.alert not in prometheus.alerts("firing", "pending"), 120, prometheus.alerts)
    assert fault.cause in section(fault.alert), f"RUNBOOK.md, {fault.alert} does not say: {fault.cause}"
    with contextmanager(fault.broken)(made):
        before = prometheus.alerts()
        started = time.monotonic()
        wait_until(lambda: fault.alert in prometheus.alerts(), PATIENCE_SECONDS, prometheus.alerts)
        seconds = time.monotonic() - started
        others = sorted(prometheus.alerts() - before - {fault.alert})
    return Outcome(seconds, others)


@contextmanager
def deployment(folder: Path) -> Iterator[Deployment]:
    """A healthy deployment under load."""
    with cluster(folder / "cluster") as made_cluster:
        prometheus = Prometheus(folder / "prometheus")
        made = Deployment(made_cluster, prometheus)
        try:
            shutil.copytree(BUNDLE, made.bundle)
            limits = {"max_cells": str(MAX_QUEUED), "max_queued_cells": str(MAX_QUEUED)}
            made_cluster.settings |= {"bundle": str(made.bundle), "reload_seconds": "0.2", **limits}
            made.service = made._start("serve")
            made.start_workers()
            wait_until(lambda: httpx.get(f"{made.service.url}/health/ready").status_code == 200)
            wait_until(lambda: prometheus.value("sum(up)") == 3)
            sending = threading.Thread(target=made.load)
            sending.start()
            yield made
        finally:
            made.stop()
            prometheus.stop()
        sending.join()


def main() -> None:
    names = [fault.broken.__name__ for fault in FAULTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(names))
    chosen = set(parser.parse_args().faults or names)
    print("| what breaks | alert that fires | seconds | others | cause in the run book |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, deployment(Path(folder)) as made:
        for fault in FAULTS:
            if fault.broken.__name__ in chosen:
                found = run_fault(made, fault)
                others = ", ".join(name.removeprefix("Scpalm") for name in found.others) or "none"
                print(f"| {fault.what} | {fault.alert} | {found.seconds:.0f} | {others} | {fault.cause} |", flush=True)


if __name__ == "__main__":
    main()
