"""The command ``scpalm-train``: from counts to a bundle with its heads and its reference, and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from scpalm.training.cli.ablation import ablation
from scpalm.training.cli.adapt import adapt
from scpalm.training.cli.annotation import annotation
from scpalm.training.cli.console import command, key_value, progress_bar, train_with_bar
from scpalm.training.cli.corpus import corpus
from scpalm.training.cli.decoder import decoder, train_cell_decoder
from scpalm.training.cli.drug_response import drug_response, evaluate_drug_response, evaluate_summed_cells
from scpalm.training.cli.drug_response_kernel import drug_response_head
from scpalm.training.cli.evaluate import app as evaluate_app
from scpalm.training.cli.evaluate_all import evaluate_all
from scpalm.training.cli.evaluate_embedding import clustering, robustness, transfer
from scpalm.training.cli.finished import Training
from scpalm.training.cli.integration import integration
from scpalm.training.cli.reference import reference
from scpalm.training.cli.views import train_view_head, views

app = typer.Typer(
    help="Train scPaLM offline: counts -> corpus -> pathways (stage 1) -> cells (stage 2) -> bundle.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(evaluate_app, name="evaluate")
app.command()(corpus)
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
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value; may be repeated. See training/README.md.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")]


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
def pathways(
    *,
    corpus_dir: Annotated[Path, typer.Argument(metavar="CORPUS")],
    out: Annotated[Path, typer.Option("--out", help="The run's folder.")],
    preset: Annotated[str, typer.Option(help="mini or base.")] = "mini",
    steps: Annotated[int | None, typer.Option(help="Batches to train.")] = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    device: Device = "auto",
) -> None:
    """Stage 1: train the pathway autoencoder."""
    from scpalm.model.network.config import PRESETS, NetworkConfig
    from scpalm.model.network.config import preset as sizes_of
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.runs.config import ConfigError, Stage1Config, as_dict, override, split_settings
    from scpalm.training.runs.memory import keep_freed_memory
    from scpalm.training.runs.processes import barrier, is_first, local_device, process_group
    from scpalm.training.runs.run import Run, RunError, pick_device
    from scpalm.training.stages.stage1 import STAGE, Stage1Trainer, train_pathways

    if preset not in PRESETS:
        raise ConfigError(f"Unknown preset '{preset}': choose {' or '.join(PRESETS)}.")
    where = local_device(pick_device(device))
    cells, run = Corpus(corpus_dir), Run(out)
    network, config = sizes_of(preset, cells.num_genes), Stage1Config()
    if resume:
        run.check_corpus(corpus_dir, cells.digest)
        network, config = run.section("network", NetworkConfig), run.section(STAGE, Stage1Config)
        if settings:
            raise RunError("--set cannot change a run that is resumed; start a new one.")
    for_network, for_training = split_settings(settings or [], network, config)
    network, config = override(network, for_network), override(config, for_training)
    config.refuse_ineffective_sizes(for_network)
    if steps is not None:
        config = override(config, {"steps": str(steps)})
    record = {
        "preset": preset,
        "corpus": str(corpus_dir.resolve()),
        "corpus_digest": cells.digest,
        "network": network.as_dict(),
        STAGE: as_dict(config),
    }
    keep_freed_memory()
    with process_group(where):
        if is_first() and resume:
            run.save_config(run.config() | record | {"preset": run.config()["preset"]})
        elif is_first():
            run.create(record)
        barrier()
        trainer = Stage1Trainer(cells, network, config, where)
        if resume and run.has_checkpoint(STAGE):
            run.resume(trainer, STAGE)
        train_with_bar(trainer, config.steps, run, train_pathways, "pathways")


@app.command()
@command
def cells(
    *,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN")],
    steps: Annotated[
        int | None, typer.Option(help="Batches to train, of the cell token, of the view head and of the decoder each.")
    ] = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    device: Device = "auto",
) -> None:
    """Stage 2: train the cell token on the codes of a finished stage 1, then the view head and the decoder."""
    from scpalm.model.network.config import NetworkConfig
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.runs.config import Stage2Config, as_dict, override
    from scpalm.training.runs.decoder_config import DecoderConfig
    from scpalm.training.runs.memory import keep_freed_memory
    from scpalm.training.runs.processes import barrier, is_first, local_device, process_group
    from scpalm.training.runs.run import Run, RunError, pick_device
    from scpalm.training.runs.views_config import ViewsConfig
    from scpalm.training.stages.stage1 import load_stage1
    from scpalm.training.stages.stage2 import STAGE, prepare_stage2, train_cells

    run, where = Run(run_dir), local_device(pick_device(device))
    saved = run.config()
    if resume and settings:
        raise RunError("--set cannot change a run that is resumed; train stage 2 again.")
    if not resume and run.has_checkpoint(STAGE):
        raise RunError(f"{run_dir} already holds a stage 2. Continue it with --resume, or remove {STAGE}.pt.")
    config = run.section(STAGE, Stage2Config) if resume and STAGE in saved else Stage2Config()
    pairs = dict(key_value(text) for text in settings or [])
    sees_cell = {key: pairs.pop(key) for key in ("decoder_sees_cell",) if key in pairs}
    network = override(run.section("network", NetworkConfig), sees_cell)
    config = override(config, pairs)
    if steps is not None:
        config = override(config, {"steps": str(steps)})
    corpus_ = Corpus(saved["corpus"])
    run.check_corpus(corpus_.path, corpus_.digest)
    run.finished("stage1")
    stage1 = load_stage1(run, network)
    keep_freed_memory()
    with process_group(where):
        if is_first():
            run.save_config(saved | {"network": network.as_dict(), STAGE: as_dict(config)})
        barrier()
        with progress_bar(config.replicas * len(corpus_), "codes", unit="cell") as bar:
            trainer = prepare_stage2(
                corpus_, stage1, config, where, lambda done, total: bar.move_to(done), kept=run.path / "codes.npz"
            )
        if resume and run.has_checkpoint(STAGE):
            run.resume(trainer, STAGE)
        train_with_bar(trainer, config.steps, run, train_cells, "cells")
        given = {} if steps is None else {"steps": str(steps)}
        train_view_head(Training(run, corpus_, stage1, override(ViewsConfig(), given), where), resume=resume)
        decoder_config = override(DecoderConfig(), given)
        train_cell_decoder(Training(run, corpus_, stage1, decoder_config, where), resume=resume)


@app.command()
@command
def export(
    *,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN")],
    out: Annotated[Path, typer.Option("--out", help="The bundle's folder.")],
    name: Annotated[str | None, typer.Option(help="Name of the model; default: the preset's.")] = None,
    version: Annotated[str, typer.Option(help="Version of the model.")] = "1",
    card: Annotated[Path | None, typer.Option(help="JSON with 'training_data' and 'notes' for the manifest.")] = None,
    torchscript: Annotated[Path | None, typer.Option(help="Also write a TorchScript archive here.")] = None,
    precision: Annotated[
        Literal["float32", "float16", "int8"],
        typer.Option(help="Precision of the stored weights; refused if it costs too much accuracy."),
    ] = "float16",
) -> None:
    """Export a finished run as a bundle, and check its parity and precision."""
    from scpalm.training.export.bundle import BundleOptions, export_run

    typer.echo("\n".join(export_run(run_dir, out, BundleOptions(name, version, card, precision, torchscript))))


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
