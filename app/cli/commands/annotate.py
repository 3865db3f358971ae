"""The command ``scpalm annotate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.app.cli.options import BundleOption, InArgument, InputOption, JsonOption, LayerOption, TotalOption
from scpalm.model.io.labels import LabelledBy
from scpalm.model.spec import RequestSpec

_DEFAULT_LABEL = LabelledBy().label


def annotate(  # one parameter per command-line option
    source: InArgument,
    out: Annotated[
        Path,
        typer.Option(
            "-o",
            "--out",
            metavar="OUT.h5ad|OUT.csv",
            help="Output: a copy with new obs columns, or a table (.csv, .tsv, .parquet).",
        ),
    ],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", metavar="REF.h5ad", help="Labelled cells. Default: the model's own reference."),
    ] = None,
    label: Annotated[str, typer.Option(help="Column of the reference's obs that has the labels.")] = _DEFAULT_LABEL,
    reference_layer: Annotated[
        str | None,
        typer.Option(help="Matrix of the reference: X, raw or a layer. Default: the one that holds the counts."),
    ] = None,
    vote: Annotated[
        str | None,
        typer.Option(help="Column of obs with clusters: also write the label that most cells of a cluster have."),
    ] = None,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    input: InputOption = "auto",
    total: TotalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Name the type of each cell by its nearest labelled cells; 'unknown' if none is close enough.

    Example: scpalm annotate cells.h5ad --vote leiden -o types.csv
    """
    from scpalm.app.cli.pipes import as_files, is_pipe
    from scpalm.app.cli.progress import CellProgress
    from scpalm.app.offline.annotate import LabelSource, annotate_file
    from scpalm.app.offline.tables import H5AD, TABLES, check_ending
    from scpalm.model.engine import load
    from scpalm.model.errors import ParameterError

    if as_json and is_pipe(out):
        raise ParameterError("--json and -o - both write to stdout. Give a file with -o.", field="json")
    if reference is None and (label != _DEFAULT_LABEL or reference_layer is not None):
        raise ParameterError("--label and --reference-layer describe a file: add --reference REF.h5ad.")
    labelled = None if reference is None else LabelSource(reference, LabelledBy(label, reference_layer))
    options = {} if vote is None else {"vote": vote}
    spec = RequestSpec(("annotate",), options, layer=layer, input=input, total=total)
    with as_files(source, out) as (read, written):
        check_ending(written, (H5AD, *TABLES))
        engine = load(bundle)
        with CellProgress(as_json=as_json) as progress:
            found = annotate_file(read, labelled, written, engine, spec, progress)
    typer.echo(f"{out}: {found.cells:,} cells, {found.unknown:,} unknown", err=True)
