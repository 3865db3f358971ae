"""Start the services of docker-compose.yml as processes, with the commands and environment from the file."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest
import yaml

from scpalm.app.settings import PREFIX
from tests.deploy.files import PROMETHEUS, ROOT, compose, load

OUR_SERVICES = ("api", "worker", "worker-cpu", "single")
SHARED = "/var/lib/scpalm/shared"


def image_environment() -> dict[str, str]:
    """The settings that the image sets (``ENV SCPALM_*`` of the Dockerfile)."""
    return dict(re.findall(rf"\b({PREFIX}\w+)=(\S+)", (ROOT / "Dockerfile").read_text()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack:
    """Services of the compose file. A context manager. Container names become ports of this machine.

    Args:
        services: names of the services in start order; a repeated name starts another instance (``--scale``).
        folder: folder for volumes and logs.
        bin: folder of the command ``scpalm``.
        every: seconds between scrapes and rule evaluations, instead of the configured interval.
    """

    def __init__(self, services: Sequence[str], folder: Path, bin: Path, *, every: int = 1) -> None:
        self._folder, self._bin, self._every = folder, bin, every
        self._compose: dict[str, Any] = compose()["services"]
        self.services = [f"{name}-{services[:at].count(name)}" for at, name in enumerate(services)]
        self.ports = {service: free_port() for service in self.services}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        try:
            for service in self.services:
                self._start(service)
            for service in self.services:
                self.wait(service)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def url(self, service: str) -> str:
        """The URL of the instance ``NAME-NUMBER``."""
        return f"http://127.0.0.1:{self.ports[service]}"

    def log(self, service: str) -> str:
        return (self._folder / f"{service}.log").read_text(errors="replace")

    def stop(self, service: str) -> int:
        """Stop an instance as ``docker stop`` does, and return its exit status."""
        process = self.processes[service]
        process.send_signal(signal.SIGTERM)
        return process.wait(90)

    def wait(self, service: str) -> None:
        """Wait until an instance is healthy."""
        name = service.rpartition("-")[0]
        path = "/health/ready" if name in OUR_SERVICES else "/-/ready"
        healthy: Callable[[], bool] = lambda: httpx.get(self.url(service) + path).status_code == 200  # noqa: E731
        if name == "redis":
            healthy = lambda: subprocess.run(  # noqa: E731
                ["redis-cli", "-p", str(self.ports[service]), "ping"], capture_output=True, check=False
            ).stdout.startswith(b"PONG")
        ends = time.monotonic() + 90
        while True:
            assert self.processes[service].poll() is None, f"{service} ended: {self.log(service)[-2000:]}"
            assert time.monotonic() < ends, f"{service} is not healthy: {self.log(service)[-2000:]}"
            try:
                if healthy():
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)

    def _start(self, service: str) -> None:
        name = service.rpartition("-")[0]
        command = self._command(service, name)
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed (Debian has it)")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        if name in OUR_SERVICES:
            environment |= image_environment() | self._compose[name]["environment"]
            # Containers have their own addresses; here each process has its own port.
            environment |= {"SCPALM_HOST": "127.0.0.1", "SCPALM_PORT": str(self.ports[service])}
        place = {key: self._here(value) for key, value in environment.items()}
        with (self._folder / f"{service}.log").open("wb") as log:
            self.processes[service] = subprocess.Popen(command, cwd=self._folder, env=place, stdout=log, stderr=log)
        if name == "redis":
            self.wait(service)  # condition: service_healthy

    def _command(self, service: str, name: str) -> list[str]:
        command = [self._here(word) for word in self._compose[name]["command"]]
        if name == "redis":
            folder = self._folder / service
            folder.mkdir(exist_ok=True)
            return [*command, "--port", str(self.ports[service]), "--dir", str(folder), "--bind", "127.0.0.1"]
        if name == "prometheus":
            flags = [word for word in command if not word.startswith(("--config.file", "--storage.tsdb.path"))]
            return [
                "prometheus",
                *flags,
                f"--config.file={self._prometheus()}",
                f"--storage.tsdb.path={self._folder / service}",
                f"--web.listen-address=127.0.0.1:{self.ports[service]}",
            ]
        return [str(self._bin / command[0]), *command[1:]]

    def _here(self, value: str) -> str:
        (self._folder / "shared").mkdir(exist_ok=True)
        value = value.replace(SHARED, str(self._folder / "shared"))
        return value.replace("redis:6379", f"127.0.0.1:{self.ports.get('redis-0', 6379)}")

    def _prometheus(self) -> Path:
        """Write the Prometheus configuration with local addresses, and with intervals of ``every`` seconds."""
        settings = load(PROMETHEUS / "prometheus.yml")
        settings["global"] = {"scrape_interval": f"{self._every}s", "evaluation_interval": f"{self._every}s"}
        for job in settings["scrape_configs"]:
            names = job.pop("dns_sd_configs")[0]["names"]
            instances = [service for service in self.services if service.rpartition("-")[0] in names]
            job["static_configs"] = [{"targets": [f"127.0.0.1:{self.ports[service]}" for service in instances]}]
        for name in settings["rule_files"]:
            rules = load(PROMETHEUS / name)
            for group in rules["groups"]:
                group["interval"] = f"{self._every}s"
            (self._folder / name).write_text(yaml.safe_dump(rules))
        path = self._folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(settings))
        return path
