"""Options and output that the evaluation commands share."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.training.cli.keep import check_keep

if TYPE_CHECKING:
    from scpalm.training.evaluation.common.dataset import Dataset
    from scpalm.training.metrics.rows import Row

Json = Annotated[Path | None, typer.Option("--json", help="Write the rows here.")]
Label = Annotated[str, typer.Option(help="Column of obs with the labels.")]
BundleOption = Annotated[Path, typer.Option("--bundle", help="The bundle to score.")]
Methods = Annotated[str | None, typer.Option(help="Comma-separated; default: all.")]
Keep = Annotated[list[str] | None, typer.Option(help="column=value: keep these cells in files that have the column.")]
Record = Annotated[bool, typer.Option("--record", help="Write means and sds into the bundle's card.")]


def datasets_of(files: list[Path], label: str, keep: list[str] | None, batch_key: str | None = None) -> list[Dataset]:
    """Read labelled files; ``keep`` as on the command line. Raises InputError."""
    import anndata

    from scpalm.training.evaluation.common.dataset import load_dataset

    pairs = check_keep(files, keep)
    out = []
    for path in files:
        columns = anndata.read_h5ad(path, backed="r").obs.columns if pairs and path.is_file() else ()
        kept = {name: value for name, value in pairs.items() if name in columns}
        out.append(load_dataset(path, label, keep=kept, batch_key=batch_key))
    return out


def pairs_of(pairs: list[str] | None) -> dict[str, str]:
    """``key=value`` options as a dict."""
    return dict(pair.partition("=")[::2] for pair in pairs or [])


def named_methods(methods: str | None) -> list[str] | None:
    """The names of ``--methods``; None without it."""
    return methods.split(",") if methods else None


def finish(rows: list[Row], columns: Sequence[str], json_out: Path | None, bundle: Path, *, record: bool) -> None:
    """Print the table, and write the rows and the bundle's card if requested."""
    from scpalm.training.evaluation.common.table import table
    from scpalm.training.metrics.rows import record_rows, write_rows

    typer.echo(table(rows, columns))
    if json_out is not None:
        write_rows(json_out, rows)
    if record:
        record_rows(bundle, rows)


def show_progress(text: str) -> None:
    """Print a step on stderr if a person watches."""
    if sys.stderr.isatty():
        typer.echo(f"  {text}", err=True)
