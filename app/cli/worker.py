"""The command ``scpalm worker``: a device that works for the services behind a Redis."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

# The command imports what it needs: `--help` must not wait for the model's libraries.


def worker(
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or cuda:n; over SCPALM_DEVICE. One worker a device.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of health and metrics; over SCPALM_HOST.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of health and metrics; over SCPALM_PORT. Default: 9000; 0: any."),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Directory of the model; over SCPALM_BUNDLE.")] = None,
) -> None:
    """Work for the services whose queue is at SCPALM_REDIS_URL, until SIGTERM or Ctrl-C: what was taken is finished."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    from scpalm.app.settings import PREFIX, SettingsError, load_settings
    from scpalm.app.telemetry.logging import configure_logging

    if port is None and not os.environ.get(f"{PREFIX}PORT"):
        port = 9000
    settings = load_settings(host=host, port=port, bundle=bundle, device=device)
    if not settings.redis_url:
        raise SettingsError(f"{PREFIX}REDIS_URL is empty: a worker needs the queue. Set it as for `scpalm serve`.")
    configure_logging(settings.log_format)
    from scpalm.app.server import serve as run_server

    run_server(settings, worker=True)
