"""The command ``scpalm integrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.app.cli.commands.task_commands import run_task
from scpalm.app.cli.options import (
    BundleOption,
    InArgument,
    InputOption,
    JsonOption,
    LayerOption,
    OutOption,
    TotalOption,
)
from scpalm.model.spec import RequestSpec


def integrate(  # one parameter per command-line option
    source: InArgument,
    out: OutOption,
    batch_key: Annotated[
        str | None,
        typer.Option("--batch-key", help="Column of obs that says which batch a cell is from: donor, technology."),
    ] = None,
    onto: Annotated[
        Path | None,
        typer.Option(
            "--onto",
            metavar="REFERENCE.h5ad",
            help="An integrated file (the output of this command): map the cells onto it and leave it unchanged.",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(help="With --onto: column of the reference's obs whose values the cells take over."),
    ] = None,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    input: InputOption = "auto",
    total: TotalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Embed the cells of a file without their batches into obsm['X_scpalm_integrated'].

    Example: scpalm integrate cells.h5ad --batch-key donor -o integrated.h5ad
    """
    from scpalm.model.errors import ParameterError

    if onto is None:
        if label is not None:
            raise ParameterError("--label is for --onto REFERENCE.h5ad.", field="label")
        options = {} if batch_key is None else {"batch_key": batch_key}
        spec = RequestSpec(("integrate",), options, layer=layer, input=input, total=total)
        run_task(source, out, bundle, spec, as_json=as_json)
        return
    if as_json:
        raise ParameterError("--json is not available with --onto.", field="json")
    if input != "auto" or total is not None:
        raise ParameterError("--input and --total cannot be used with --onto: convert the file first.", field="input")
    from scpalm.app.offline.integrate import map_file
    from scpalm.model.engine import load
    from scpalm.model.mapping import FAR, MapOptions

    found = map_file(source, onto, out, load(bundle), MapOptions(batch_key, label or "", layer))
    typer.echo(
        f"{out}: {found.num_cells:,} cells mapped, {found.num_far:,} of them over {FAR:g} times as far from the "
        "reference as its cells are from each other",
        err=True,
    )
