"""One embedded service on small disks, to try what happens in one place when one thing fails."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.chaos.cluster import Json, Process, wait_until

ASYNC = {"Prefer": "respond-async"}


class CannotMountError(Exception):
    """Small disks need root on Linux."""


@dataclass
class Disk:
    """A small disk (tmpfs)."""

    path: Path

    def room(self) -> int:
        """Free bytes."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Take all room except ``leave`` bytes, until `free`."""
        with suppress(OSError):  # the service wrote meanwhile, and the disk is as full as it can be
            (self.path / "others").write_bytes(bytes(max(0, self.room() - leave)))

    def free(self) -> None:
        """Give the room back."""
        (self.path / "others").unlink()


@dataclass
class Site:
    """A folder with two disks, and the service that uses them.

    Attributes:
        folder: folder for logs and other files.
        spool: disk of SCPALM_SPOOL_DIR.
        results: disk of SCPALM_RESULTS_DIR.
    """

    folder: Path
    spool: Disk
    results: Disk
    service: Process = field(init=False)
    processes: list[Process] = field(default_factory=list)

    @property
    def hold(self) -> Path:
        """While this file exists, the device waits."""
        return self.folder / "hold"

    def start(self, **settings: str) -> Process:
        """Start the service and wait until it is ready."""
        chosen = {
            "spool_dir": str(self.spool.path),
            "results_dir": str(self.results.path),
            "parser_processes": "1",
            "drain_seconds": "0.2",
            "reload_seconds": "0.2",
            **settings,
        }
        log = self.folder / f"process{len(self.processes)}.log"
        self.service = Process(log, "serve", chosen, {"CHAOS_HOLD": str(self.hold)})
        self.processes.append(self.service)
        self.service.wait_until_ready()
        return self.service

    def post(self, path: str, body: Json | bytes, **headers: str) -> httpx.Response:
        """POST a body, as JSON unless it is bytes."""
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return httpx.post(f"{self.service.url}{path}", headers=headers, timeout=120, **content)

    def job(self, body: Json, path: str = "/embed") -> str:
        """Send a job and return its location."""
        answer = self.post(path, body, **ASYNC)
        assert answer.status_code == 202, answer.text
        return answer.headers["location"]

    def state(self, location: str) -> str:
        """The state of a job."""
        return str(httpx.get(f"{self.service.url}{location}").json()["state"])

    def finish(self, location: str) -> None:
        """Wait until a job has succeeded and its result can be read."""
        wait_until(lambda: self.state(location) not in ("queued", "running"), 60, lambda: self.state(location))
        assert self.state(location) == "succeeded", httpx.get(f"{self.service.url}{location}").text
        assert httpx.get(f"{self.service.url}{location}/result", timeout=60).status_code == 200

    def ready(self) -> str:
        """ "ready", or the status and the reason."""
        answer = httpx.get(f"{self.service.url}/health/ready")
        return "ready" if answer.status_code == 200 else f"{answer.status_code} {answer.json()['detail']}"

    def left(self) -> list[str]:
        """Files on both disks that belong to no job, request or process. Empty when all is well."""
        jobs = {job["id"] for job in httpx.get(f"{self.service.url}/jobs").json()["jobs"]}
        spooled = [
            path
            for path in self.spool.path.rglob("*")
            if path.is_file()
            and path.name != "others"
            and not path.name.endswith("-lock")
            # The copy of a model that is served.
            and not path.parent.name.startswith("scpalm-model-")
        ]
        stored = [
            path
            for path in self.results.path.rglob("*")
            if path.is_file()
            and path.name not in ("others", "lock", "jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm")
            and (path.relative_to(self.results.path).parts[0] not in jobs or path.suffix == ".partial")
        ]
        return [str(path) for path in (*spooled, *stored)]

    def assert_well(self) -> None:
        """The service is alive and ready, and nothing is left."""
        wait_until(lambda: self.ready() == "ready", 30, self.ready)
        wait_until(lambda: not self.left(), 10, self.left)
        assert httpx.get(f"{self.service.url}/health/live").status_code == 200
        assert "Traceback" not in self.service.log.read_text(), self.service.log.read_text()


@contextmanager
def site(folder: Path, spool_bytes: int = 64 << 20, results_bytes: int = 64 << 20) -> Iterator[Site]:
    """A site whose service the case starts. Raises CannotMountError."""
    folder.mkdir(parents=True, exist_ok=True)
    disks: list[Disk] = []
    made: Site | None = None
    try:
        for name, size in (("spool", spool_bytes), ("results", results_bytes)):
            path = folder / name
            path.mkdir()
            command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise CannotMountError(done.stderr.strip())
            disks.append(Disk(path))
        made = Site(folder, disks[0], disks[1])
        yield made
        for process in made.processes:
            if process.process.poll() is None:
                assert process.stop(signal.SIGTERM) == 0, process.log.read_text()
    finally:
        for process in made.processes if made is not None else ():
            process.process.kill()
            process.process.wait()
        time.sleep(0.1)  # parsers end when their parent does
        for disk in disks:
            subprocess.run(["umount", "--lazy", str(disk.path)], check=False)
