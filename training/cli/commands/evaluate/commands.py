"""The commands ``scpalm-train evaluate ...``: score a bundle and its baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.commands.evaluate.options import (
    BundleOption,
    Json,
    Keep,
    Label,
    Methods,
    Record,
    datasets_of,
    finish,
    named_methods,
    show_progress,
)
from scpalm.training.cli.console import command

app = typer.Typer(help="Score a bundle and its baselines.", no_args_is_help=True)


@app.callback()
def evaluate() -> None:
    """Score a bundle and its baselines."""


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
    options = ImputationOptions(means, named_methods(methods), range(seeds), clusters)
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
    method: Annotated[str, typer.Option(help="embedding, basis, h_C or another part of the output.")] = "embedding",
    seed: Annotated[int, typer.Option(help="Seed of UMAP and Leiden.")] = 0,
) -> None:
    """Draw a UMAP of the embedding, coloured by label and by Leiden cluster."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.clustering.picture import draw_umap
    from scpalm.training.evaluation.common.dataset import load_dataset
    from scpalm.training.evaluation.common.embeddings import BundleEmbeddings

    dataset = load_dataset(file, label)
    array = BundleEmbeddings(Bundle.load(bundle)).embed(method, dataset.matrix)
    draw_umap(array, dataset, out, seed=seed, title=method)
    typer.echo(f"{dataset.matrix.num_cells:,} cells -> {out}")
