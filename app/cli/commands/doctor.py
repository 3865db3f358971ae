"""The command ``scpalm doctor``: whether this machine and its settings can serve, with advice."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from scpalm.app.settings import Settings

_LITTLE_DISK = 2 << 30
_EXTRAS = {"harmonypy": ("integrate", "integration of batches"), "matplotlib": ("plot", "scpalm.pl")}


@dataclass(frozen=True)
class Finding:
    """One examined thing. ``state``: ``ok``, ``note`` (works, but read this) or ``fault``."""

    what: str
    state: Literal["ok", "note", "fault"]
    text: str


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Examine versions, runtime, model, Redis, disk and port, and time a test embedding. Exit status 1 for a fault.

    Reads the same SCPALM_* settings as `scpalm serve`. Example: scpalm doctor
    """
    findings = list(examine())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(f"{finding.state:6}{finding.what:12}{finding.text}")
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)


def examine() -> Iterator[Finding]:
    """All findings, in order. A test that fails in an unexpected way is a fault as well."""
    from scpalm.app.settings import SettingsError, load_settings

    yield _versions()
    try:
        settings = load_settings()
    except SettingsError as error:
        yield Finding("settings", "fault", " ".join(str(error).split()))
        return
    yield Finding("settings", "ok", "all SCPALM_* variables are known")
    tests: dict[str, Callable[[Settings], Finding]] = {
        "model": _model,
        "redis": _redis,
        "disk": _disk,
        "port": _port,
        "keys": _keys,
    }
    for what, test in tests.items():
        try:
            yield test(settings)
        except Exception as error:  # a doctor reports what it cannot examine
            yield Finding(what, "fault", f"{type(error).__name__}: {' '.join(str(error).split())}")
    yield from _isolation()
    for package, (extra, use) in _EXTRAS.items():
        if importlib.util.find_spec(package) is None:
            yield Finding(package, "note", f"not installed; {use} needs it: pip install 'scpalm[{extra}]'")


def _isolation() -> Iterator[Finding]:
    from scpalm.app.parsing.isolation.isolate import missing_isolation

    missing = missing_isolation()
    for sentence in missing:
        yield Finding("isolation", "note", sentence)
    if not missing:
        yield Finding("isolation", "ok", "parsers of uploads reach no network, programs or other files")


def _versions() -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    from scpalm.model.release import release

    found = [f"scpalm {release()}", f"Python {sys.version.split()[0]}", platform.platform(terse=True)]
    for package in ("onnxruntime-gpu", "onnxruntime", "torch", "numpy"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return Finding("versions", "ok", ", ".join(found))


def _model(settings: Settings) -> Finding:
    from scpalm.model.bundle import Bundle
    from scpalm.model.engine import open_runtime

    bundle = Bundle.load(settings.bundle)  # verifies every checksum
    started = time.perf_counter()
    session = open_runtime(bundle, device=settings.device, runtime=settings.runtime)
    rate = session.warm_up().cells_per_second
    name, version, checksum = bundle.identity
    info = session.info
    return Finding(
        "model",
        "ok",
        f"{name} {version} ({checksum[:12]}), {info.runtime} on {info.device}: {rate:,.0f} cells/s with codes, "
        f"ready in {time.perf_counter() - started:.1f} s",
    )


def _redis(settings: Settings) -> Finding:
    if not settings.redis_url:
        return Finding("redis", "ok", "not used: queue and model are in one process (SCPALM_REDIS_URL is empty)")
    import redis

    from scpalm.app.queue.redis.connection import warnings_of

    with redis.Redis.from_url(settings.redis_url, socket_connect_timeout=3, socket_timeout=3) as client:
        info = client.info()
    warnings = list(warnings_of(info))
    text = f"Redis {info['redis_version']} answers"
    return Finding("redis", "note" if warnings else "ok", "; ".join([text, *warnings]))


def _disk(settings: Settings) -> Finding:
    folder = Path(settings.spool_dir or tempfile.gettempdir())
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"scpalm")
    state: Literal["ok", "note"] = "ok" if free > _LITTLE_DISK else "note"
    more = "" if state == "ok" else "; uploads of 1 GiB may not fit: free space, or set SCPALM_SPOOL_DIR"
    return Finding("disk", state, f"{free / 1e9:,.1f} GB free in {folder}{more}")


def _port(settings: Settings) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            return Finding(
                "port", "note", f"{settings.host}:{settings.port} cannot be used ({error.strerror}); is scpalm running?"
            )
    return Finding("port", "ok", f"{settings.host}:{settings.port} is free")


def _keys(settings: Settings) -> Finding:
    local = settings.host in ("127.0.0.1", "localhost", "::1")
    if settings.api_keys_file is not None:
        count = len(json.loads(settings.api_keys_file.read_text()))
        return Finding("keys", "ok", f"{count} entries in {settings.api_keys_file}")
    if local:
        return Finding("keys", "ok", "none: only this machine reaches the service")
    return Finding(
        "keys", "note", f"none, and {settings.host} is reachable from outside: make one with `scpalm key NAME`"
    )
