"""The command ``scpalm worker``: computes on one device for the services that share a Redis."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

# Imports are inside the function, so that `--help` does not wait for the libraries of the model.

# Ports for health checks and metrics if no port is requested; the first free one is used.
DEFAULT_PORTS = range(9000, 9100)


def worker(
    device: Annotated[
        str | None,
        typer.Option(help="auto, cpu, cuda or cuda:n; overrides SCPALM_DEVICE. Start one worker per device."),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address of health checks and metrics; overrides SCPALM_HOST.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port of health checks and metrics; overrides SCPALM_PORT. Default: the first free port from "
            f"{DEFAULT_PORTS.start}; 0: any free port.",
        ),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the model; overrides SCPALM_BUNDLE.")] = None,
) -> None:
    """Compute for the services that share the queue at SCPALM_REDIS_URL. SIGTERM or Ctrl-C: finish, then exit.

    Example: scpalm worker --bundle MINE
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    from scpalm.app.queue.registry import transport_kind
    from scpalm.app.settings import PREFIX, SettingsError, load_settings
    from scpalm.app.telemetry.logging import configure_logging

    settings = load_settings(host=host, port=port, bundle=bundle, device=device)
    if transport_kind(settings.redis_url).in_process:
        raise SettingsError(
            f"A worker needs a shared queue. Set {PREFIX}REDIS_URL to the same value as for `scpalm serve`."
        )
    configure_logging(settings.log_format)
    from scpalm.app.server import serve as run_server

    port_requested = port is not None or bool(os.environ.get(f"{PREFIX}PORT"))
    run_server(settings, worker=True, ports=[settings.port] if port_requested else DEFAULT_PORTS)
