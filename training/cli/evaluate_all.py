"""``scpalm-train evaluate all``: every table of a bundle by one command, and a page of them. Wiring only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli import evaluate as evaluate_cli
from scpalm.training.cli.console import command


@command
def evaluate_all(
    files: Annotated[list[Path], typer.Argument(metavar="FILE.h5ad ...", help="Labelled cells.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for rows, tables, pictures and report.html.")],
    corpus: Annotated[
        Path | None, typer.Option(help="Training corpus: its gene means as a baseline, and its codes' pathways.")
    ] = None,
    gene_sets: Annotated[
        list[Path] | None, typer.Option("--gene-sets", help="GMT files of symbols, for the pathways.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Labelled cells to annotate the first file from.")
    ] = None,
    label: evaluate_cli.Label = "cell_type",
    bundle: evaluate_cli.BundleOption = DEFAULT_BUNDLE,
    seeds: Annotated[int, typer.Option(help="Of the clustering.", min=1)] = 10,
    imputation_seeds: Annotated[int, typer.Option(help="Of masks and of methods.", min=1)] = 3,
    batch_key: Annotated[str | None, typer.Option(help="Column of obs with batches.")] = None,
    label_map: Annotated[list[str] | None, typer.Option("--map", help="query=reference: one type, two names.")] = None,
    keep: evaluate_cli.Keep = None,
    record: evaluate_cli.Record = False,
) -> None:
    """Clustering, imputation, pathways and annotation, as far as their inputs are named, and one HTML page.

    Rows that are there (``OUT/<task>.rows.json``) are kept: after Ctrl-C the command goes on with the next task.
    """
    from scpalm.model.errors import InputError

    if (corpus is None) != (gene_sets is None):
        raise InputError(
            "half-pathways",
            "Pathways need both a corpus and gene sets.",
            mend="Name --corpus and --gene-sets, or neither.",
        )
    out.mkdir(parents=True, exist_ok=True)
    done: list[Path] = []

    def wanted(task: str) -> Path | None:
        """Where the rows of a task go; None when they are there."""
        done.append(out / f"{task}.rows.json")
        typer.echo(f"## {task}", err=True)
        return None if done[-1].exists() else done[-1]

    if (rows := wanted("clustering")) is not None:
        evaluate_cli.clustering(
            files,
            rows,
            label,
            bundle,
            seeds,
            keep=keep,
            extended=True,
            batch_key=batch_key,
            pictures=out,
            record=record,
        )
    if (rows := wanted("imputation")) is not None:
        evaluate_cli.imputation(files, rows, label, bundle, imputation_seeds, corpus=corpus, keep=keep, record=record)
    if corpus is not None and gene_sets is not None and (rows := wanted("pathways")) is not None:
        codes, heatmap = out / "pathways.json", out / "codes.png"
        # The rows last: they are the sign that the rest is there.
        evaluate_cli.pathways([corpus], gene_sets, rows, label, bundle, codes_out=codes, heatmap=heatmap, record=record)
    if reference is not None and (rows := wanted("annotation")) is not None:
        evaluate_cli.annotation(files[:1], reference, rows, label, bundle, label_map, keep=keep, record=record)
    evaluate_cli.report(done, out / "report.html", bundle=bundle, pictures=sorted(out.glob("*.png")))
