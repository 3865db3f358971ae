"""The command ``scpalm-train``: from counts to a bundle with its heads and its reference, and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.training.cli.commands.adapt import adapt
from scpalm.training.cli.commands.all import train_all
from scpalm.training.cli.commands.corpus import corpus
from scpalm.training.cli.commands.decoder import decoder
from scpalm.training.cli.commands.drug_response import drug_response, evaluate_drug_response, evaluate_summed_cells
from scpalm.training.cli.commands.drug_response_kernel import drug_response_head
from scpalm.training.cli.commands.evaluate.ablation import ablation
from scpalm.training.cli.commands.evaluate.annotation import annotation
from scpalm.training.cli.commands.evaluate.commands import app as evaluate_app
from scpalm.training.cli.commands.evaluate.embedding import clustering, robustness, transfer
from scpalm.training.cli.commands.evaluate.integration import integration
from scpalm.training.cli.commands.evaluate.whole import evaluate_all
from scpalm.training.cli.commands.export import export
from scpalm.training.cli.commands.reference import reference
from scpalm.training.cli.commands.stages import cells, pathways
from scpalm.training.cli.commands.views import views
from scpalm.training.cli.console import command

app = typer.Typer(
    help="Train scPaLM offline: counts -> corpus -> pathways (stage 1) -> cells (stage 2) -> bundle.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(evaluate_app, name="evaluate")
app.command("all")(train_all)
app.command()(corpus)
app.command()(pathways)
app.command()(cells)
app.command()(export)
app.command("drug-response")(drug_response)
app.command("drug-response-head")(drug_response_head)
app.command("reference")(reference)
app.command()(views)
app.command()(decoder)
app.command()(adapt)
evaluate_app.command("all")(evaluate_all)
evaluate_app.command()(clustering)
evaluate_app.command()(transfer)
evaluate_app.command()(robustness)
evaluate_app.command()(integration)
evaluate_app.command("ablation")(ablation)
evaluate_app.command("annotation")(annotation)
evaluate_app.command("drug-response")(evaluate_drug_response)
evaluate_app.command("summed-cells")(evaluate_summed_cells)


@app.command()
@command
def vocabulary(
    hgnc: Annotated[Path, typer.Argument(help="hgnc_complete_set.txt[.gz]")],
    gencode: Annotated[Path, typer.Argument(help="CSV without header: Ensembl id, name")],
    out: Annotated[Path, typer.Option("--out", "-o", help="genes.parquet to write")],
) -> None:
    """Build the gene vocabulary from reference tables."""
    from scpalm.training.corpus.vocabulary import build_vocabulary

    genes = build_vocabulary(hgnc, gencode)
    genes.save(out)
    typer.echo(f"{len(genes):,} genes -> {out}")


@app.command()
@command
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="HTML to write; default: RUN/report.html.")] = None,
) -> None:
    """Write curves, code usage and UMAPs of a run, finished or not, as one HTML file."""
    from scpalm.training.evaluation.run_report import write_report
    from scpalm.training.runs.run import Run

    typer.echo(f"-> {write_report(Run(run_dir), out or run_dir / 'report.html')}")


def main() -> None:
    """Run the command line."""
    app()
