"""The command ``scpalm serve``."""

from __future__ import annotations

import signal
import sys
import textwrap
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperCommand


class ServeCommand(TyperCommand):
    """A command whose help also lists all settings."""

    def get_help(self, ctx) -> str:  # type: ignore[no-untyped-def]  # its type is private to typer
        from scpalm.app.settings import PREFIX, setting_lines

        parts = [super().get_help(ctx), "", f"Settings (environment variables {PREFIX}*):"]
        for name, text in setting_lines():
            parts += ["", f"  {name}", textwrap.fill(text, 96, initial_indent=" " * 6, subsequent_indent=" " * 6)]
        return "\n".join(parts)


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; overrides SCPALM_HOST.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; overrides SCPALM_PORT.")
    ] = None,
    bundle: Annotated[Path | None, typer.Option(help="Folder of the model; overrides SCPALM_BUNDLE.")] = None,
) -> None:
    """Run the HTTP service until SIGTERM or Ctrl-C.

    Example: scpalm serve --port 8080
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    from scpalm.app.settings import load_settings
    from scpalm.app.telemetry.logging import configure_logging

    settings = load_settings(host=host, port=port, bundle=bundle)
    configure_logging(settings.log_format)
    from scpalm.app.server import serve as run_server

    run_server(settings)
