"""The command ``scpalm-train views``, and the last step of ``cells``: train the view head of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.training.cli.console import command, train_with_bar
from scpalm.training.cli.finished import Choices, Training, open_finished, save_section

if TYPE_CHECKING:
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
    from scpalm.training.runs.processes import process_group
    from scpalm.training.runs.views_config import ViewsConfig

    training = open_finished(run_dir, "views", ViewsConfig(), Choices(steps, settings, resume, device))
    with process_group(training.device):
        train_view_head(training, resume=resume)


def train_view_head(training: Training[ViewsConfig], *, resume: bool) -> None:
    """Train the head on the read-out of a finished stage 1. Without a served read-out, or of width 0, do nothing."""
    from scpalm.model.network.read_out import LinearReadOut
    from scpalm.training.stages.views import STAGE, ViewTrainer, train_views

    read_out, network = training.stage1.embedding, training.stage1.config
    if not isinstance(read_out, LinearReadOut) or not network.view_width:
        return
    save_section(training, STAGE)
    trainer = ViewTrainer(training.corpus, read_out.basis, network, training.config, training.device)
    if resume and training.run.has_checkpoint(STAGE):
        training.run.resume(trainer, STAGE)
    train_with_bar(trainer, training.config.steps, training.run, train_views, "views")
