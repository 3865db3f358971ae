from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from scpalm.app.parsing import pool
from scpalm.app.parsing.isolation import isolate
from scpalm.app.parsing.isolation.isolate import Folders, missing_isolation
from scpalm.app.parsing.isolation.landlock import landlock_version
from scpalm.app.parsing.messages import Message
from scpalm.app.parsing.process import ParserLimits, ParserProcess
from tests.app.pools import with_pool, write_genes

MISSING = missing_isolation()


@dataclass
class Place:
    """A parser process that is allowed two folders, and a folder that it is not."""

    process: ParserProcess
    uploads: Path
    scratch: Path
    outside: Path

    def attempt(self, what: str, target: str | int | Path) -> str:
        """The name of the error; "" if the attempt succeeded."""
        target = str(target) if isinstance(target, Path) else target
        return str(self.process.call(Message("try", {"what": what, "target": target})).content["error"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    root = tmp_path_factory.mktemp("isolation")
    folders = [root / name for name in ("uploads", "scratch", "outside")]
    for folder in folders:
        folder.mkdir()
        (folder / "file").write_bytes(b"content")
    uploads, scratch, outside = folders
    limits = ParserLimits(512 << 20, 30.0)
    allowed = Folders((uploads,), (scratch,))
    process = ParserProcess(root / "genes.parquet", limits, allowed, "tests.app.parsing.intruding_child")
    process.set_up()
    yield Place(process, uploads, scratch, outside)
    process.close()


@pytest.fixture
def isolated(place: Place) -> Place:
    if MISSING:
        pytest.skip(" ".join(MISSING))
    return place


@pytest.mark.parametrize("what", ["read", "list", "write", "remove", "rename"])
def test_files_outside_its_folders_are_refused(isolated: Place, what: str) -> None:
    target = isolated.outside if what == "list" else isolated.outside / "file"
    assert isolated.attempt(what, target) == "PermissionError"
    assert (isolated.outside / "file").read_bytes() == b"content"


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/1/environ", "/proc/self/environ"])
def test_files_of_the_system_are_refused(isolated: Place, path: str) -> None:
    assert isolated.attempt("read", path) == "PermissionError"


@pytest.mark.parametrize("what", ["write", "remove", "rename"])
def test_uploads_cannot_be_changed(isolated: Place, what: str) -> None:
    assert isolated.attempt("read", isolated.uploads / "file") == ""
    assert isolated.attempt(what, isolated.uploads / "file") == "PermissionError"
    assert isolated.attempt("write", isolated.uploads / "new") == "PermissionError"


def test_a_link_does_not_lead_outside(isolated: Place) -> None:
    link = isolated.uploads / "link"
    link.symlink_to(isolated.outside / "file")
    assert isolated.attempt("read", link) == "PermissionError"


def test_it_uses_its_scratch_folder(isolated: Place) -> None:
    assert isolated.attempt("use", isolated.scratch / "new") == ""


def test_it_opens_no_sockets(isolated: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as local:
        local.bind(str(isolated.scratch / "socket"))
        local.listen()
        assert isolated.attempt("connect", server.getsockname()[1]) == "PermissionError"
        assert isolated.attempt("unix socket", isolated.scratch / "socket") == "PermissionError"
    assert isolated.attempt("listen", 0) == "PermissionError"


def test_it_starts_no_programs_and_signals_no_processes(isolated: Place) -> None:
    assert isolated.attempt("program", "/bin/true") == "PermissionError"
    if landlock_version() >= 6:
        assert isolated.attempt("signal", os.getpid()) == "PermissionError"


def test_its_resources_are_limited(place: Place) -> None:
    limits = place.process.call(Message("limits")).content
    assert limits["RLIMIT_NOFILE"] <= 256
    assert limits["RLIMIT_FSIZE"] <= isolate.MAX_FILE_BYTES
    assert limits["RLIMIT_CORE"] == 0
    assert 0 < limits["RLIMIT_AS"] < 8 << 30


def test_a_kernel_without_it_is_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ParserProcess, "missing_isolation", ("The kernel has no landlock.",))
    isolate.warn_once.cache_clear()

    async def use(started: pool.ParserPool) -> None:
        await started.start()

    with caplog.at_level(logging.WARNING, "scpalm.parsing"):
        with_pool(write_genes(tmp_path), use)
    isolate.warn_once.cache_clear()
    assert [record.getMessage() for record in caplog.records] == [
        "isolation of parsers is incomplete: The kernel has no landlock."
    ]


def test_missing_parts_are_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError(38, "seccomp: not here")

    monkeypatch.setattr(isolate, "landlock_version", lambda: 0)
    monkeypatch.setattr(isolate, "refuse_calls", refuse)
    files, calls = missing_isolation()
    assert files == "The kernel has no landlock: parsers can read every file that the service can read."
    assert calls.startswith("Parsers can open sockets and start programs (")
