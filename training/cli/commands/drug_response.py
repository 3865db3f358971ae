"""The commands ``scpalm-train drug-response`` and ``scpalm-train evaluate drug-response``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.console import command
from scpalm.training.metrics.rows import Row

DataDir = Annotated[Path, typer.Argument(metavar="DATA_DIR", help="The folder that holds response.parquet.")]


@command
def drug_response(
    *,
    data_dir: DataDir,
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")],
    bundle: Annotated[Path, typer.Option(help="The bundle whose encoder gives h_C.")] = DEFAULT_BUNDLE,
    split: Annotated[str, typer.Option(help="published, pair-dedup, cell-line or drug.")] = "published",
    inputs: Annotated[
        str, typer.Option(help="Comma-separated: h_C, genes, h_C+genes, pca, scfoundation.")
    ] = "h_C+genes",
    settings: Annotated[str, typer.Option(help="Comma-separated: expression, mutation, methylation.")] = "expression",
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 5,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key=value, may be repeated.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a run; finished members are kept.")] = False,
    test: Annotated[bool, typer.Option(help="Also score the test rows; leave this to the end.")] = True,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    figures: Annotated[Path | None, typer.Option(help="Write Figures 4 and 5 into this folder.")] = None,
    export: Annotated[
        bool, typer.Option("--export", help="Put the first of --inputs, in every setting, into the bundle.")
    ] = False,
    unknown_drugs: Annotated[
        Path | None,
        typer.Option(help="For --export: a run of --split drug, for the intervals of drugs outside the table."),
    ] = None,
    structures: Annotated[
        Literal["checked", "published"],
        typer.Option(help="checked: correct structures that are another compound's; leave out drugs without one."),
    ] = "checked",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
) -> None:
    """Train DeepCDR heads on a bundle's h_C or on genes, and compare them with references; optionally export them."""
    import torch

    from scpalm.model.bundle import Bundle
    from scpalm.training.drug_response.config import DrugTrainingConfig
    from scpalm.training.drug_response.data.tables import load_tables
    from scpalm.training.drug_response.experiment import DrugRun, Experiment, run_record, variants_of
    from scpalm.training.drug_response.export import HeadSource, export_head
    from scpalm.training.drug_response.features import embed_lines
    from scpalm.training.evaluation.common.table import table
    from scpalm.training.evaluation.drug_response.figures import draw_figures
    from scpalm.training.evaluation.drug_response.report import COLUMNS, run_rows, summary, win_lines
    from scpalm.training.metrics.rows import write_rows
    from scpalm.training.runs.config import ConfigError, override, split_settings

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    if export and (unknown_drugs is None or split != "published"):
        raise ConfigError("--export needs --split published and --unknown-drugs RUN, a run of --split drug.")
    variants = variants_of(inputs.split(","), settings.split(","))
    config = override(DrugTrainingConfig(), split_settings(set_ or [], DrugTrainingConfig())[0])
    tables, encoder, run = load_tables(data_dir, structures=structures), Bundle.load(bundle), DrugRun(out)
    run.start(run_record(tables, encoder, split, config), resume=resume)
    lines = embed_lines(tables, encoder, threads=threads)

    def show(name: str, stage: str, step: float, rmse: float) -> None:
        typer.echo(f"  {name}: {stage} {step:g}, validation RMSE {rmse:.4f}", err=True)

    experiment = Experiment(run, tables, encoder, lines, config)
    for outcome in experiment.train(split, variants, range(seeds), show):
        typer.echo(f"{outcome.variant.name}, seed {outcome.seed}: done", err=True)
    rows = run_rows(run, tables, split, variants, range(seeds), test=test)
    typer.echo(table(rows, COLUMNS))
    if json_out is not None:
        write_rows(json_out, rows)
    if test and split == "published":
        typer.echo("\n".join(win_lines(run, tables, variants)))
    if figures is not None:
        typer.echo(f"{', '.join(path.name for path in draw_figures(run, tables, variants[0], figures))} -> {figures}")
    if export and unknown_drugs is not None:
        shipped = [variant for variant in variants if variant.inputs == variants[0].inputs]
        source = HeadSource(run, shipped, DrugRun(unknown_drugs))
        report = export_head(source, tables, lines, encoder, summary(rows))
        typer.echo("\n".join(report))


@command
def evaluate_drug_response(
    *,
    data_dir: DataDir,
    bundle: Annotated[Path, typer.Option(help="The bundle whose head is scored.")] = DEFAULT_BUNDLE,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    settings: Annotated[
        bool, typer.Option(help="Also new lines, new drugs, both, and biomarkers, by ten folds. Takes minutes.")
    ] = False,
) -> None:
    """Score the drug-response head of a bundle and its references on the published test rows."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.drug_response.data.tables import load_tables
    from scpalm.training.evaluation.common.table import table
    from scpalm.training.evaluation.drug_response.report import COLUMNS
    from scpalm.training.evaluation.drug_response.settings import biomarker_summary, setting_rows
    from scpalm.training.evaluation.drug_response.shipped import shipped_rows
    from scpalm.training.metrics.rows import write_rows

    tables = load_tables(data_dir)
    rows = shipped_rows(tables, Bundle.load(bundle))
    biomarkers: list[Row] = []
    if settings:
        found, biomarkers = setting_rows(tables, lambda text: typer.echo(text, err=True))
        rows += found
    typer.echo(table(rows, (*COLUMNS, "drug_pcc_median")))
    if biomarkers:
        typer.echo(table(biomarkers, ("mutant_lines", "measured", "predicted", "kept", "seen")))
        typer.echo("\n".join(biomarker_summary(biomarkers)))
    if json_out is not None:
        write_rows(json_out, rows + biomarkers)


@command
def evaluate_summed_cells(
    *,
    data_dir: DataDir,
    files: Annotated[list[Path], typer.Argument(help="h5ad files of single cells of known lines.")],
    bundle: Annotated[Path, typer.Option(help="A bundle whose head was trained with --leave-out of these lines.")],
    lines: Annotated[str, typer.Option(help="Comma-separated NAME=DEPMAP_ID; NAME as in the column --label.")],
    label: Annotated[str, typer.Option(help="Column of obs with the name of the line.")] = "cell_type",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
) -> None:
    """Score drug response from summed single cells of lines that the head has not seen, next to their bulk profiles."""
    from scpalm.model.engine import load
    from scpalm.training.drug_response.data.tables import load_tables
    from scpalm.training.evaluation.common.table import table
    from scpalm.training.evaluation.drug_response.summed_cells import summary_lines, summed_rows
    from scpalm.training.metrics.rows import write_rows

    named = dict(pair.split("=", 1) for pair in lines.split(",") if "=" in pair)
    rows = summed_rows(load_tables(data_dir), load(bundle, "cpu"), files, named, label)
    typer.echo(table(rows, ("r", "coverage", "distance")))
    typer.echo("\n".join(summary_lines(rows)))
    if json_out is not None:
        write_rows(json_out, rows)
