"""The command line ``scpalm``. Exit status: 0; 2 for wrong use; 1 with one line on stderr."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from scpalm.app.cli.cluster_options import ClusterCommand, ClusterOption, ProcessesOption, address_of
from scpalm.app.cli.jobs import jobs
from scpalm.app.cli.worker import ServeCommand, worker
from scpalm.model.errors import BundleError, InputError

# Each command imports what it needs: `--version` and `--help` must not wait for the model's libraries.

cli = typer.Typer(
    name="scpalm",
    help="scPaLM: embeddings of single-cell RNA counts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help="Directory of the model. Default: the one in the package.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(version("scpalm"))
        except PackageNotFoundError:
            typer.echo("0+source")
        raise typer.Exit


@cli.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """scPaLM: embeddings of single-cell RNA counts."""


@cli.command(cls=ServeCommand)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; over SCPALM_HOST.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on; over SCPALM_PORT.")] = None,
    bundle: Annotated[Path | None, typer.Option(help="Directory of the model; over SCPALM_BUNDLE.")] = None,
) -> None:
    """Serve over HTTP until SIGTERM or Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    from scpalm.app.settings import load_settings
    from scpalm.app.telemetry.logging import configure_logging

    settings = load_settings(host=host, port=port, bundle=bundle)
    configure_logging(settings.log_format)
    from scpalm.app.server import serve as run_server

    run_server(settings)


cli.command(cls=ServeCommand)(worker)
cli.command()(jobs)


InArgument = Annotated[Path, typer.Argument(metavar="IN.h5ad", help="The cells.")]
OutOption = Annotated[
    Path, typer.Option("-o", "--out", metavar="OUT.h5ad", help="The same file with the results added.")
]
LayerOption = Annotated[str | None, typer.Option(help="Which matrix: raw for raw.X, or a layer. Default: X.")]
KindOption = Annotated[
    Literal["auto", "counts", "log"], typer.Option("--input", help="What the values are; auto finds out.")
]


@cli.command(cls=ClusterCommand)
def embed(
    source: InArgument,
    out: OutOption,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    kind: KindOption = "auto",
    cluster: ClusterOption = None,
    processes: ProcessesOption = None,
) -> None:
    """Embed every cell of a file: obsm['X_scpalm']. Streamed: memory does not grow with the number of cells."""
    address = address_of(cluster, processes, out)
    if cluster is None:
        from scpalm.app.cli.run import run_task

        run_task(source, out, bundle, layer, kind, "embed")
        return
    from scpalm.app.cli.cluster import embed_on_cluster

    embed_on_cluster(source, out, bundle, layer, kind, address, processes)


@cli.command()
def impute(
    source: InArgument,
    out: OutOption,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    kind: KindOption = "auto",
    genes: Annotated[
        str, typer.Option(help="Genes, comma-separated: obsm['X_scpalm_imputed']. Default: all columns of the file.")
    ] = "",
    scale: Annotated[
        Literal["log", "counts"], typer.Option(help="log: log1p CP10K. counts: at the cell's own depth.")
    ] = "log",
) -> None:
    """Impute expression from each cell's pathway codes: layers['scpalm_imputed'], NaN for genes the model lacks."""
    from scpalm.app.cli.run import run_task

    run_task(source, out, bundle, layer, kind, "impute", genes=genes, scale=scale)


@cli.command()
def pathways(
    source: InArgument,
    out: OutOption,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    kind: KindOption = "auto",
    summary: Annotated[
        bool, typer.Option(help="Share of tokens of each code instead: obsm['X_scpalm_pathway_shares'].")
    ] = False,
) -> None:
    """Write the pathway code of each token of each cell: obsm['X_scpalm_pathways']."""
    from scpalm.app.cli.run import run_task

    run_task(source, out, bundle, layer, kind, "pathways", summary=summary)


@cli.command()
def annotate(
    source: InArgument,
    reference: Annotated[Path, typer.Option("--reference", metavar="REF.h5ad", help="Labelled cells.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT.h5ad|OUT.csv", help="A copy with obs columns, or a table.")
    ],
    label: Annotated[str, typer.Option(help="Column of the reference's obs with the labels.")] = "cell_type",
    bundle: BundleOption = None,
    layer: LayerOption = None,
    kind: KindOption = "auto",
) -> None:
    """Label cells by the nearest labelled ones in the embedding; 'unknown' where none is near enough."""
    from scpalm.app.offline.annotate import annotate_file
    from scpalm.app.serving.runtime import open_runtime
    from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle

    loaded = Bundle.load(bundle or DEFAULT_BUNDLE)
    session = open_runtime(loaded)
    from scpalm.app.cli.progress import CellProgress

    with CellProgress() as progress:
        found = annotate_file(
            source,
            reference,
            label,
            out,
            loaded,
            session,
            layer=layer,
            declared=kind,
            on_start=progress.start,
            on_chunk=progress.advance,
        )
    unknown = int((found.label == "unknown").sum())
    typer.echo(f"{out}: {len(found.label):,} cells, {unknown:,} unknown", err=True)


@cli.command()
def ic50(
    source: InArgument,
    out: OutOption,
    bundle: BundleOption = None,
    layer: LayerOption = None,
    kind: KindOption = "auto",
    drug: Annotated[
        list[str] | None,
        typer.Option(help="Name, PubChem id or SMILES; may be repeated. Default: every drug of the training data."),
    ] = None,
) -> None:
    """Predict ln IC50 (uM) of each cell and drug: obsm['X_scpalm_ic50'], its interval beside it, names in uns.

    Dataframes obsm['mutation'] (1, 0, or -1 where unknown) and obsm['methylation'] are read, too, with a column a gene.
    """
    from scpalm.app.cli.run import run_task

    run_task(source, out, bundle, layer, kind, "ic50", drugs=tuple(drug or ()))


@cli.command()
def models(bundle: BundleOption = None) -> None:
    """Print the model's card: what it was trained on, how it was measured, its files."""
    from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle

    typer.echo(json.dumps(Bundle.load(bundle or DEFAULT_BUNDLE).manifest, indent=2, ensure_ascii=False))


@cli.command()
def key(name: Annotated[str, typer.Argument(help="Who will hold it.")]) -> None:
    """Make an API key: it is printed once, with the entry for the file of SCPALM_API_KEYS_FILE."""
    from scpalm.app.auth.keys import new_key

    secret, entry = new_key(name)
    typer.echo(f"key: {secret}\nentry: {json.dumps(entry)}")


@cli.command()
def sample(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="cells.h5ad", help="The file to write.")],
) -> None:
    """Write a small file of real cells to try with."""
    from scpalm.app.offline.sample import write_sample

    num_cells, num_genes = write_sample(out)
    typer.echo(f"{out}: {num_cells} cells x {num_genes} genes", err=True)


def main() -> None:
    """Entry point: a user's error is one line on stderr, never a traceback."""
    try:
        cli()
    except Exception as error:
        if not _is_expected(error):
            raise
        print(f"scpalm: {_one_line(error)}", file=sys.stderr)
        sys.exit(1)


def _is_expected(error: Exception) -> bool:
    if isinstance(error, (InputError, BundleError, OSError, MemoryError)):
        return True
    # Named, not imported: their modules load what most commands do not need.
    return type(error).__name__ in (
        "SettingsError",
        "ServeError",
        "QueueError",
        "SpoolError",
        "DeviceError",
        "MissingRuntimeError",
        "InvalidParameterError",
        "UnsupportedTaskError",
        "ClusterError",
        "LedgerError",
        "NotReadyError",
        "StorageFullError",
    )


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'the disk'}: {error.strerror}."
    return " ".join(str(error).split()) or type(error).__name__
