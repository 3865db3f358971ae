"""The command ``scpalm-train views``, and the last step of ``cells``: train the view head of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.training.cli.console import command, key_value, train_with_bar

if TYPE_CHECKING:
    import torch

    from scpalm.model.network.pathways import PathwayAutoencoder
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.runs.run import Run
    from scpalm.training.runs.views_config import ViewsConfig


@command
def views(
    *,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN")],
    steps: Annotated[int | None, typer.Option(help="Batches to train.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; may be repeated. See training/README.md.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
) -> None:
    """Train the view head again, the part of the embedding that ignores technology; `cells` trains it by default."""
    from scpalm.model.network.config import NetworkConfig
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.runs.config import override
    from scpalm.training.runs.processes import local_device, process_group
    from scpalm.training.runs.run import Run, RunError, pick_device
    from scpalm.training.runs.views_config import ViewsConfig
    from scpalm.training.stages.stage1 import load_stage1

    run, where = Run(run_dir), local_device(pick_device(device))
    saved = run.config()
    if resume and settings:
        raise RunError("--set cannot change a run that is resumed; train the view head again.")
    config = run.section("views", ViewsConfig) if resume and "views" in saved else ViewsConfig()
    config = override(config, dict(key_value(text) for text in settings or []))
    if steps is not None:
        config = override(config, {"steps": str(steps)})
    corpus = Corpus(saved["corpus"])
    run.check_corpus(corpus.path, corpus.digest)
    run.finished("stage1")
    stage1 = load_stage1(run, run.section("network", NetworkConfig))
    with process_group(where):
        train_view_head(run, corpus, stage1, config, where, resume=resume)


def train_view_head(
    run: Run,
    corpus: Corpus,
    stage1: PathwayAutoencoder,
    config: ViewsConfig,
    where: torch.device,
    *,
    resume: bool,
) -> None:
    """Train the head on the read-out of a finished stage 1. Without a served read-out, or of width 0, do nothing."""
    from scpalm.model.network.read_out import LinearReadOut
    from scpalm.training.runs.config import as_dict
    from scpalm.training.runs.processes import barrier, is_first
    from scpalm.training.stages.views import STAGE, ViewTrainer, train_views

    read_out, network = stage1.embedding, stage1.config
    if not isinstance(read_out, LinearReadOut) or not network.view_width:
        return
    if is_first():
        run.save_config(run.config() | {STAGE: as_dict(config)})
    barrier()
    trainer = ViewTrainer(corpus, read_out.basis, network, config, where)
    if resume and run.has_checkpoint(STAGE):
        run.resume(trainer, STAGE)
    train_with_bar(trainer, config.steps, run, train_views, "views")
