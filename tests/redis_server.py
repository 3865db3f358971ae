"""A real redis-server on a free port, for tests."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import redis

SERVER = shutil.which("redis-server")
# In CI, a missing server must not skip tests. They run there, and fail in `RedisServer.start`.
SKIPPED_WITHOUT_REDIS = SERVER is None and not os.environ.get("CI")
needs_redis = pytest.mark.skipif(
    SKIPPED_WITHOUT_REDIS, reason="redis-server is not installed (Debian: apt install redis-server)"
)


def require_redis() -> None:
    """Skip like `needs_redis`, for use in fixtures or for a single parameter."""
    if SKIPPED_WITHOUT_REDIS:
        pytest.skip("redis-server is not installed (Debian: apt install redis-server)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A redis-server process with an append-only file in ``folder``, unless ``settings`` override that.

    It can be killed and restarted with the same port and data.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.settings = {"appendonly": "yes", "maxmemory-policy": "noeviction", "save": "", **settings}
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, protocol=2)

    def start(self) -> RedisServer:
        assert SERVER is not None, "redis-server is not installed (Debian: apt install redis-server)"
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = [part for name, value in self.settings.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [SERVER, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *flags],
            stdout=subprocess.DEVNULL,
        )
        ends = time.monotonic() + 20
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return self
                except redis.RedisError:
                    assert time.monotonic() < ends and self.process.poll() is None, "redis-server did not start"
                    time.sleep(0.02)

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
