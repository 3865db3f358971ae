"""The command ``scpalm-train drug-response-head``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.console import command
from scpalm.training.cli.drug_response import DataDir


@command
def drug_response_head(
    *,
    data_dir: DataDir,
    bundle: Annotated[Path, typer.Option(help="The bundle that gets the head.")] = DEFAULT_BUNDLE,
    leave_out: Annotated[str, typer.Option(help="Comma-separated DepMap ids of lines not to train on.")] = "",
) -> None:
    """Train the kernel head on every response but the published test rows, and put it into a bundle. Takes minutes."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.drug_response.data.tables import load_tables
    from scpalm.training.drug_response.kernel.export import export_kernel_head, train_kernel_head, training_rows
    from scpalm.training.evaluation.drug_response.shipped import shipped_rows

    tables, opened = load_tables(data_dir), Bundle.load(bundle)
    rows = training_rows(tables, [line for line in leave_out.split(",") if line])
    trained = train_kernel_head(tables, rows, lambda text: typer.echo(text, err=True))
    export_kernel_head(trained, tables, opened, [])
    figures = shipped_rows(tables, Bundle.load(bundle))
    export_kernel_head(trained, tables, opened, figures)
    widths = trained.head.widths
    typer.echo(f"{len(trained.lines)} lines, {len(trained.head.mutations.gene)} mutation effects; intervals: {widths}")
