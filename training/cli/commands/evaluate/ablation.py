"""The command ``scpalm-train evaluate ablation``."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from scpalm.training.cli.console import command, progress_bar

COLUMNS = (
    *("ari", "nmi", "silhouette", "knn_accuracy"),
    *("stage1_seconds", "stage2_seconds", "stage1_megabytes", "stage2_megabytes"),
)
# Small runs: few steps, small batches, and a queue that fills during them.
STAGE1 = {"batch_size": "64", "warmup_steps": "20"}
STAGE2 = {"batch_size": "64", "warmup_steps": "20", "queue_start": "1024", "queue": "8192", "replicas": "2"}


@command
def ablation(
    *,
    corpus_dir: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A small corpus: every variant is trained on it.")
    ],
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", help="Labelled cells to score on; default: labelled sets of the corpus."),
    ] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    label: Annotated[str, typer.Option(help="Column of obs with the labels.")] = "cell_type",
    keep: Annotated[
        list[str] | None, typer.Option(help="column=value: keep these cells in files that have the column.")
    ] = None,
    preset: Annotated[str, typer.Option(help="mini or base.")] = "mini",
    steps: Annotated[int, typer.Option(help="Steps of stage 1; stage 2 has a third as many.", min=3)] = 300,
    seeds: Annotated[int, typer.Option(help="Seeds of Leiden and of the folds; training uses one.", min=1)] = 3,
    variants: Annotated[list[str] | None, typer.Option("--variant", help="By name; default: all.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for the networks of all variants; may be repeated.")
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Keep finished variants here, and continue from them next time.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.", min=1)] = None,
) -> None:
    """Train variants that each change one choice of the model, and score all in the same way (paper Tables 5, 6, 7)."""
    import torch

    from scpalm.model.network.config import preset as sizes_of
    from scpalm.training.cli.commands.evaluate.options import datasets_of
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.evaluation.ablation.cells import Cells
    from scpalm.training.evaluation.ablation.train import AblationConfig, Scoring, run_ablation
    from scpalm.training.evaluation.ablation.variants import chosen_variants
    from scpalm.training.evaluation.common.table import table
    from scpalm.training.metrics.rows import write_rows
    from scpalm.training.runs.config import Stage1Config, Stage2Config, override, split_settings

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = chosen_variants(variants)
    corpus = Corpus(corpus_dir)
    network = sizes_of(preset, corpus.num_genes)
    network = override(network, split_settings(settings or [], network)[0])
    config = AblationConfig(
        network,
        override(Stage1Config(), STAGE1 | {"steps": str(steps)}),
        override(Stage2Config(), STAGE2 | {"steps": str(max(1, steps // 3))}),
    )
    own = [Cells.of_file(dataset, corpus) for dataset in datasets_of(files or [], label, keep)]
    datasets = own or Cells.of_corpus(corpus)
    with ExitStack() as stack:
        folder = runs or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scpalm-ablation-")))
        bar = stack.enter_context(progress_bar(len(chosen), "ablation", unit="variant"))
        done = 0

        def show(text: str, at: int, total: int) -> None:
            nonlocal done
            finished = total == len(chosen) and any(text == variant.name for variant in chosen)
            done = max(done, at) if finished else done
            bar.move_to(done)
            bar.advance(0, f"{text} {at}/{total}" if total and not finished else text)

        rows = run_ablation(corpus, Scoring(datasets, range(seeds)), config, chosen, folder, progress=show)
    typer.echo(table(rows, COLUMNS))
    if json_out is not None:
        write_rows(json_out, rows)
