"""The command ``scpalm-train drug-response-head``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.commands.drug_response import DataDir
from scpalm.training.cli.console import command
from scpalm.training.metrics.rows import Row


@command
def drug_response_head(
    *,
    data_dir: DataDir,
    bundle: Annotated[Path, typer.Option(help="The bundle that gets the head.")] = DEFAULT_BUNDLE,
    leave_out: Annotated[str, typer.Option(help="Comma-separated DepMap ids of lines not to train on.")] = "",
    settings: Annotated[
        bool, typer.Option(help="Judge new lines, new drugs and biomarkers too, for the card. Takes minutes.")
    ] = False,
) -> None:
    """Train the kernel head on every response but the published test rows, and put it into a bundle."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.drug_response.data.tables import load_tables
    from scpalm.training.drug_response.kernel.export import export_kernel_head, train_kernel_head, training_rows
    from scpalm.training.evaluation.drug_response.settings import setting_rows
    from scpalm.training.evaluation.drug_response.shipped import shipped_rows

    tables, opened = load_tables(data_dir), Bundle.load(bundle)
    rows = training_rows(tables, [line for line in leave_out.split(",") if line])
    trained = train_kernel_head(tables, rows, lambda text: typer.echo(text, err=True))
    export_kernel_head(trained, tables, opened, [])
    figures, biomarkers = shipped_rows(tables, Bundle.load(bundle)), list[Row]()
    if settings:
        found, biomarkers = setting_rows(tables, lambda text: typer.echo(text, err=True))
        figures += found
    export_kernel_head(trained, tables, opened, figures, biomarkers)
    widths = trained.head.widths
    typer.echo(f"{len(trained.lines)} lines, {len(trained.head.mutations.gene)} mutation effects; intervals: {widths}")
