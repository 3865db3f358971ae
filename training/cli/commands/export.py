"""The command ``scpalm-train export``: a finished run in, a bundle out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scpalm.training.cli.console import command


@command
def export(
    *,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the preset's.")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    card: Annotated[Path | None, typer.Option(help="JSON with 'training_data' and 'notes' for the manifest.")] = None,
    torchscript: Annotated[Path | None, typer.Option(help="Also write a TorchScript archive here.")] = None,
    precision: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="Precision of the stored weights; refused if it costs too much accuracy."),
    ] = "float16",
) -> None:
    """Export a finished run as a bundle, and check its parity and precision."""
    from scpalm.training.export.bundle import BundleOptions, export_run

    typer.echo("\n".join(export_run(run_dir, out, BundleOptions(name, version, card, precision, torchscript))))
