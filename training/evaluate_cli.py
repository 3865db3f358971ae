"""``scpalm-train evaluate``: each number beside its baselines."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from model.bundle import DEFAULT_BUNDLE
from training.console import command

app = typer.Typer(help="Score a bundle beside its baselines.", no_args_is_help=True)


@app.callback()
def evaluate() -> None:
    """Score a bundle beside its baselines."""


@app.command()
@command
def clustering(
    files: list[Path],
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    label: Annotated[str, typer.Option(help="Column of obs with the labels.")] = "cell_type",
    bundle: Annotated[Path, typer.Option(help="The bundle to score.")] = DEFAULT_BUNDLE,
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 10,
    methods: Annotated[str | None, typer.Option(help="Comma-separated; default: all.")] = None,
    keep: Annotated[
        list[str] | None, typer.Option(help="column=value: where a file has the column, keep these.")
    ] = None,
    record: Annotated[bool, typer.Option("--record", help="Write means and sds into the bundle's card.")] = False,
) -> None:
    """Leiden clusters and kNN votes against labels, for the model and its baselines; prints a table."""
    import anndata

    from model.bundle import Bundle
    from training.evaluation.baselines import Baselines
    from training.evaluation.compare import compare_clustering
    from training.evaluation.dataset import load_dataset
    from training.evaluation.embeddings import BundleEmbeddings
    from training.evaluation.rows import record_rows, write_rows
    from training.evaluation.source import EmbeddingSource
    from training.evaluation.table import table

    pairs = dict(pair.partition("=")[::2] for pair in keep or [])
    datasets = []
    for path in files:
        columns = anndata.read_h5ad(path, backed="r").obs.columns if pairs and path.is_file() else ()
        kept = {name: value for name, value in pairs.items() if name in columns}
        datasets.append(load_dataset(path, label, keep=kept))
    sources: list[EmbeddingSource] = [BundleEmbeddings(Bundle.load(bundle)), Baselines()]
    chosen = methods.split(",") if methods else None
    rows = compare_clustering(
        datasets,
        sources,
        methods=chosen,
        seeds=range(seeds),
        progress=lambda text: typer.echo(f"  {text}", err=True) if sys.stderr.isatty() else None,
    )
    typer.echo(table(rows))
    if json_out is not None:
        write_rows(json_out, rows)
    if record:
        record_rows(bundle, rows)


@app.command()
@command
def picture(
    file: Path,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")],
    label: Annotated[str, typer.Option(help="Column of obs with the labels.")] = "cell_type",
    bundle: Annotated[Path, typer.Option(help="The bundle.")] = DEFAULT_BUNDLE,
    seed: Annotated[int, typer.Option(help="Of UMAP and Leiden.")] = 0,
) -> None:
    """UMAP of h_C, coloured by label and by Leiden cluster, as one PNG."""
    from model.bundle import Bundle
    from training.evaluation.dataset import load_dataset
    from training.evaluation.embeddings import BundleEmbeddings
    from training.evaluation.picture import draw_umap

    dataset = load_dataset(file, label)
    draw_umap(BundleEmbeddings(Bundle.load(bundle)).embed("h_C", dataset.matrix), dataset, out, seed=seed)
    typer.echo(f"{dataset.matrix.num_cells:,} cells -> {out}")
