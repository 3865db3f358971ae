"""The command ``scpalm-train decoder``, and the last step of ``cells``: train the decoder of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.training.cli.console import command, train_with_bar
from scpalm.training.cli.finished import Choices, Training, open_finished, save_section

if TYPE_CHECKING:
    from scpalm.training.runs.decoder_config import DecoderConfig


@command
def decoder(
    *,
    run_dir: Annotated[Path, typer.Argument(metavar="RUN")],
    steps: Annotated[int | None, typer.Option(help="Batches to train.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="key=value; may be repeated. See training/README.md.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")] = "auto",
) -> None:
    """Train the decoder again, which imputes expression from codes and f; `cells` trains it by default."""
    from scpalm.training.runs.decoder_config import DecoderConfig
    from scpalm.training.runs.processes import process_group

    training = open_finished(run_dir, "decoder", DecoderConfig(), Choices(steps, settings, resume, device))
    with process_group(training.device):
        train_cell_decoder(training, resume=resume)


def train_cell_decoder(training: Training[DecoderConfig], *, resume: bool) -> None:
    """Train the decoder on a finished stage 1. Does nothing without a served read-out."""
    from scpalm.model.network.read_out import LinearReadOut
    from scpalm.training.stages.decoder import STAGE, DecoderTrainer, train_decoder

    if not isinstance(training.stage1.embedding, LinearReadOut):
        return
    save_section(training, STAGE)
    trainer = DecoderTrainer(training.corpus, training.stage1, training.config, training.device)
    if resume and training.run.has_checkpoint(STAGE):
        training.run.resume(trainer, STAGE)
    train_with_bar(trainer, training.config.steps, training.run, train_decoder, "decoder")
