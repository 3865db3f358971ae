from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from scpalm.app.errors import QueueError
from scpalm.app.main import create_app
from scpalm.app.queue import transports
from scpalm.app.queue.registry import QueueOptions, known_schemes, open_transport, transport_kind
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.settings import load_settings

OPTIONS = QueueOptions(max_rows=10, max_bytes=100)

NEW_TRANSPORT = """
from scpalm.app.queue.registry import TransportKind
from scpalm.app.queue.transports.memory import open_memory

TRANSPORT = TransportKind(("pigeon",), in_process=True, open=open_memory)
"""

DEFAULT_WITHOUT_REDIS = """
import sys
from scpalm.app.main import create_app
from scpalm.app.settings import load_settings
create_app(load_settings())
import scpalm.app.jobs.home, scpalm.app.jobs.runner
load_settings(redis_url="redis://localhost/0")
print([name for name in sys.modules if name.partition(".")[0] == "redis"])
"""


@pytest.fixture
def new_transport(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A transport that consists of one file in the package of transports."""
    (tmp_path / "pigeon.py").write_text(NEW_TRANSPORT)
    monkeypatch.setattr(transports, "__path__", [*transports.__path__, str(tmp_path)])
    yield
    sys.modules.pop(f"{transports.__name__}.pigeon", None)


def test_the_scheme_of_the_url_chooses_the_transport() -> None:
    assert known_schemes() == ["redis", "rediss", "unix"]
    assert isinstance(open_transport(OPTIONS), MemoryTransport)
    assert transport_kind("").in_process and not transport_kind("rediss://host:6379/1").in_process
    for unknown in ("pigeon://roof", "localhost:6379", "host"):
        with pytest.raises(QueueError, match=r"SCPALM_REDIS_URL.*redis, rediss, unix"):
            create_app(load_settings(redis_url=unknown))


def test_a_new_transport_needs_one_file(new_transport: None) -> None:
    settings = load_settings(redis_url="pigeon://roof")
    assert isinstance(open_transport(replace(OPTIONS, url=settings.redis_url)), MemoryTransport)
    assert "pigeon" in known_schemes()


def test_the_default_imports_nothing_of_redis() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEFAULT_WITHOUT_REDIS],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
