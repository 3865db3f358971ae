"""The command ``scpalm-train evaluate all``: all tables of a bundle, and one HTML page of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypedDict, Unpack

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.commands.evaluate import commands, embedding
from scpalm.training.cli.commands.evaluate.annotation import annotation
from scpalm.training.cli.commands.evaluate.integration import integration
from scpalm.training.cli.commands.evaluate.options import BundleOption, Keep, Label, Record
from scpalm.training.cli.console import command


@command
def evaluate_all(
    *,
    files: Annotated[list[Path], typer.Argument(metavar="FILE.h5ad ...", help="Labelled cells.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for rows, tables, pictures and report.html.")],
    corpus: Annotated[
        Path | None, typer.Option(help="Training corpus, for its gene means (a baseline) and its codes' pathways.")
    ] = None,
    gene_sets: Annotated[
        list[Path] | None, typer.Option("--gene-sets", help="GMT files of symbols, for the pathways.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="Labelled cells to annotate the first file from.")
    ] = None,
    label: Label = "cell_type",
    bundle: BundleOption = DEFAULT_BUNDLE,
    seeds: Annotated[int, typer.Option(help="Number of seeds for clustering.", min=1)] = 10,
    imputation_seeds: Annotated[int, typer.Option(help="Number of seeds for imputation.", min=1)] = 3,
    cells: Annotated[
        int, typer.Option(help="Cells of a draw for the score on few cells; 0: leave it out.", min=0)
    ] = 60,
    batch_key: Annotated[
        str | None, typer.Option(help="Column of obs with batches: also batch mixing and transfer of labels.")
    ] = None,
    label_map: Annotated[
        list[str] | None, typer.Option("--map", help="query=reference: two names of the same type.")
    ] = None,
    keep: Keep = None,
    record: Record = False,
) -> None:
    """Score the embedding and imputation, pathways and annotation if their inputs are given, and write one HTML page.

    Existing rows (``OUT/<task>.rows.json``) are kept: after Ctrl-C the command continues with the next task.
    """
    from scpalm.model.errors import InputError

    if (corpus is None) != (gene_sets is None):
        raise InputError(
            "half-pathways",
            "Pathways need both a corpus and gene sets.",
            hint="Give both --corpus and --gene-sets, or neither.",
        )
    out.mkdir(parents=True, exist_ok=True)
    done: list[Path] = []

    def wanted(task: str) -> Path | None:
        """The file for the rows of a task; None when it exists already."""
        done.append(out / f"{task}.rows.json")
        typer.echo(f"## {task}", err=True)
        return None if done[-1].exists() else done[-1]

    if (rows := wanted("clustering")) is not None:
        embedding.clustering(
            files=files,
            json_out=rows,
            label=label,
            bundle=bundle,
            seeds=seeds,
            keep=keep,
            extended=True,
            batch_key=batch_key,
            pictures=out,
            record=record,
        )
    if cells and (rows := wanted("few_cells")) is not None:
        embedding.clustering(
            files=files,
            json_out=rows,
            label=label,
            bundle=bundle,
            seeds=seeds,
            keep=keep,
            cells=cells,
            record=record,
        )
    if batch_key is not None:
        score_batches(files, batch_key, wanted, label=label, bundle=bundle, keep=keep, record=record)
    if (rows := wanted("robustness")) is not None:
        embedding.robustness(files=files, json_out=rows, label=label, bundle=bundle, keep=keep, record=record)
    if (rows := wanted("imputation")) is not None:
        commands.imputation(
            files=files,
            json_out=rows,
            label=label,
            bundle=bundle,
            seeds=imputation_seeds,
            corpus=corpus,
            keep=keep,
            record=record,
        )
    if corpus is not None and gene_sets is not None and (rows := wanted("pathways")) is not None:
        codes, heatmap = out / "pathways.json", out / "codes.png"
        # The rows are written last: they mark the task as done.
        commands.pathways(
            sources=[corpus],
            gene_sets=gene_sets,
            json_out=rows,
            label=label,
            bundle=bundle,
            codes_out=codes,
            heatmap=heatmap,
            record=record,
        )
    if reference is not None and (rows := wanted("annotation")) is not None:
        annotation(
            queries=files[:1],
            reference=reference,
            json_out=rows,
            label=label,
            bundle=bundle,
            label_map=label_map,
            keep=keep,
            record=record,
        )
    commands.report(done, out / "report.html", bundle=bundle, pictures=sorted(out.glob("*.png")))


class Scoring(TypedDict):
    """Options that the commands on batches share."""

    label: str
    bundle: Path
    keep: list[str] | None
    record: bool


def score_batches(
    files: list[Path], batch_key: str, wanted: Callable[[str], Path | None], **options: Unpack[Scoring]
) -> None:
    """Transfer of labels between batches, and integration."""
    if (rows := wanted("transfer")) is not None:
        embedding.transfer(files=files, batch_key=batch_key, json_out=rows, **options)
    if (rows := wanted("integration")) is not None:
        integration(
            files=files,
            batch_key=batch_key,
            json_out=rows,
            label_key=options["label"],
            bundle=options["bundle"],
            keep=options["keep"],
            record=options["record"],
        )
