"""The command ``scpalm annotate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.app.cli.options import BundleOption, InArgument, InputOption, LayerOption, TotalOption
from scpalm.model.spec import RequestSpec


def annotate(  # one parameter per command-line option
    source: InArgument,
    reference: Annotated[Path, typer.Option("--reference", metavar="REF.h5ad", help="File with labelled cells.")],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", metavar="OUT.h5ad|OUT.csv", help="Output: a copy with new obs columns, or a CSV table."
        ),
    ],
    label: Annotated[str, typer.Option(help="Column of the reference's obs that has the labels.")] = "cell_type",
    bundle: BundleOption = None,
    layer: LayerOption = None,
    input: InputOption = "auto",
    total: TotalOption = None,
) -> None:
    """Label cells by their nearest labelled cells in the embedding; 'unknown' if none is close enough."""
    from scpalm.app.cli.progress import CellProgress
    from scpalm.app.offline.annotate import LabelSource, annotate_file
    from scpalm.app.offline.tables import H5AD, TABLES, check_ending
    from scpalm.model.engine import load

    check_ending(out, (H5AD, *TABLES))
    engine = load(bundle)
    with CellProgress() as progress:
        found = annotate_file(
            source,
            LabelSource(reference, label),
            out,
            engine,
            RequestSpec((), layer=layer, input=input, total=total),
            progress,
        )
    unknown = int((found.label == "unknown").sum())
    typer.echo(f"{out}: {len(found.label):,} cells, {unknown:,} unknown", err=True)
