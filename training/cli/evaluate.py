"""The commands ``scpalm-train evaluate ...``: score a bundle and its baselines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.console import command
from scpalm.training.cli.keep import check_keep

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scpalm.training.evaluation.common.dataset import Dataset
    from scpalm.training.metrics.rows import Row

Json = Annotated[Path | None, typer.Option("--json", help="Write the rows here.")]
Label = Annotated[str, typer.Option(help="Column of obs with the labels.")]
BundleOption = Annotated[Path, typer.Option("--bundle", help="The bundle to score.")]
Methods = Annotated[str | None, typer.Option(help="Comma-separated; default: all.")]
Keep = Annotated[list[str] | None, typer.Option(help="column=value: keep these cells in files that have the column.")]
Record = Annotated[bool, typer.Option("--record", help="Write means and sds into the bundle's card.")]

app = typer.Typer(help="Score a bundle and its baselines.", no_args_is_help=True)


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
    return dict(pair.partition("=")[::2] for pair in pairs or [])


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
    if sys.stderr.isatty():
        typer.echo(f"  {text}", err=True)


@app.callback()
def evaluate() -> None:
    """Score a bundle and its baselines."""


@app.command()
@command
def clustering(
    *,
    files: list[Path],
    json_out: Json = None,
    label: Label = "cell_type",
    bundle: BundleOption = DEFAULT_BUNDLE,
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 10,
    methods: Methods = None,
    keep: Keep = None,
    extended: Annotated[
        bool, typer.Option("--extended", help="Also the best resolution and a logistic probe.")
    ] = False,
    batch_key: Annotated[
        str | None, typer.Option(help="Column of obs with batches: also iLISI, cLISI and graph connectivity.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write a UMAP of every method, by label and by cluster, into this folder.")
    ] = None,
    record: Record = False,
) -> None:
    """Compare Leiden clusters and kNN votes with labels, for the model and its baselines; prints a table."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.clustering.compare import ClusteringOptions, compare_clustering
    from scpalm.training.evaluation.clustering.picture import draw_umap
    from scpalm.training.evaluation.common.baselines import Baselines
    from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
    from scpalm.training.evaluation.common.source import EmbeddingSource
    from scpalm.training.evaluation.common.table import CLUSTERING_COLUMNS

    datasets = datasets_of(files, label, keep, batch_key)

    def draw(dataset: Dataset, method: str, array: NDArray[np.floating]) -> None:
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            draw_umap(array, dataset, pictures / f"{dataset.name}-{method}.png", title=method)

    sources: list[EmbeddingSource] = [BundleEmbeddings(Bundle.load(bundle)), Baselines()]
    options = ClusteringOptions(methods.split(",") if methods else None, range(seeds), extended)
    rows = compare_clustering(datasets, sources, options, progress=show_progress, on_array=draw)
    finish(rows, CLUSTERING_COLUMNS, json_out, bundle, record=record)


@app.command()
@command
def imputation(
    *,
    files: list[Path],
    json_out: Json = None,
    label: Label = "cell_type",
    bundle: BundleOption = DEFAULT_BUNDLE,
    seeds: Annotated[int, typer.Option(help="Number of seeds, for masks and methods.", min=1)] = 3,
    methods: Methods = None,
    corpus: Annotated[
        Path | None, typer.Option(help="Training corpus, for its gene means as another zero-shot baseline.")
    ] = None,
    keep: Keep = None,
    clusters: Annotated[bool, typer.Option(help="Also cluster the imputed cells.")] = True,
    record: Record = False,
) -> None:
    """Compare imputed values with held-back counts, and clusters before and after; prints a table."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.evaluation.common.table import IMPUTATION_COLUMNS
    from scpalm.training.evaluation.imputation.compare import ImputationOptions, compare_imputation
    from scpalm.training.stages.corpus_statistics import gene_means

    loaded = Bundle.load(bundle)
    means = None
    if corpus is not None:
        opened = Corpus(corpus)
        if opened.vocabulary.ensembl_ids != loaded.vocabulary.ensembl_ids:
            raise ValueError(f"{corpus} and {bundle} have different genes. Name the corpus the bundle was trained on.")
        means = gene_means(opened, opened.train_rows)
    options = ImputationOptions(means, methods.split(",") if methods else None, range(seeds), clusters)
    rows = compare_imputation(datasets_of(files, label, keep), loaded, options, show_progress)
    finish(rows, IMPUTATION_COLUMNS, json_out, bundle, record=record)


@app.command()
@command
def pathways(
    *,
    sources: Annotated[
        list[Path], typer.Argument(metavar="FILE.h5ad|CORPUS ...", help="Cells, preferably training cells.")
    ],
    gene_sets: Annotated[list[Path], typer.Option("--gene-sets", help="GMT files of symbols, e.g. Reactome.")],
    json_out: Json = None,
    label: Label = "cell_type",
    bundle: BundleOption = DEFAULT_BUNDLE,
    permutations: Annotated[int, typer.Option(help="Permutations of the codes, for the null.", min=0)] = 20,
    seeds: Annotated[int, typer.Option(help="Seeds of the permutations.", min=1)] = 1,
    codes_out: Annotated[Path | None, typer.Option("--codes", help="Write pathways.json here.")] = None,
    heatmap: Annotated[Path | None, typer.Option(help="Write a PNG of codes by cell type here.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write rows and pathways.json into the bundle.")] = False,
) -> None:
    """Find the genes and enriched terms of each code, and compare with permuted codes; prints a table."""
    import orjson

    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.common.table import PATHWAY_COLUMNS
    from scpalm.training.evaluation.pathways.cells import draw_heatmap, label_shares, read_pathway_cells
    from scpalm.training.evaluation.pathways.enrichment import code_pathways, pathway_rows, pathways_document
    from scpalm.training.evaluation.pathways.gene_sets import read_gmt
    from scpalm.training.export.bundle_files import add_files

    loaded = Bundle.load(bundle)
    sets = {name: genes for path in gene_sets for name, genes in read_gmt(path).items()}
    cells = read_pathway_cells(loaded, sources, label)
    num_codes = int(loaded.manifest["network"]["num_codes"])
    name = sources[0].stem if len(sources) == 1 else f"{len(sources)} files"
    rows = []
    document: dict[str, object] = {}
    for seed in range(seeds):
        found = code_pathways(cells, num_codes, sets, permutations=permutations, seed=seed, progress=show_progress)
        rows += pathway_rows(name, len(cells), found, seed)
        document = document or pathways_document(found, cells.symbols, rows, [path.stem for path in gene_sets])
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2)
    if codes_out is not None:
        codes_out.write_bytes(content)
    if heatmap is not None:
        names, shares = label_shares(cells.codes, cells.labels, num_codes)
        if not names:
            raise ValueError(f"No label in '{label}' has 20 cells for the heatmap. Name another --label.")
        draw_heatmap(names, shares, heatmap)
    if record:
        add_files(bundle, {"pathways.json": content}, {})
    finish(rows, PATHWAY_COLUMNS, json_out, bundle, record=record)


@app.command()
@command
def report(
    rows: Annotated[
        list[Path], typer.Argument(metavar="ROWS.json ...", help="Files that --json of the other commands wrote.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="HTML page to write.")],
    bundle: BundleOption = DEFAULT_BUNDLE,
    pictures: Annotated[list[Path] | None, typer.Option("--picture", help="PNG to embed in the page.")] = None,
) -> None:
    """Write one HTML page of all rows, with embedded pictures."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.common.report import read_rows, write_report

    all_rows = [row for path in rows for row in read_rows(path)]
    write_report(out, all_rows, Bundle.load(bundle), pictures or [])
    typer.echo(f"{len(all_rows):,} rows -> {out}")


@app.command()
@command
def picture(
    file: Path,
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG to write.")],
    label: Annotated[str, typer.Option(help="Column of obs with the labels.")] = "cell_type",
    bundle: Annotated[Path, typer.Option(help="The bundle.")] = DEFAULT_BUNDLE,
    seed: Annotated[int, typer.Option(help="Seed of UMAP and Leiden.")] = 0,
) -> None:
    """Draw a UMAP of h_C, coloured by label and by Leiden cluster."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.clustering.picture import draw_umap
    from scpalm.training.evaluation.common.dataset import load_dataset
    from scpalm.training.evaluation.common.embeddings import BundleEmbeddings

    dataset = load_dataset(file, label)
    draw_umap(BundleEmbeddings(Bundle.load(bundle)).embed("h_C", dataset.matrix), dataset, out, seed=seed)
    typer.echo(f"{dataset.matrix.num_cells:,} cells -> {out}")
