"""The commands ``scpalm-train pathways`` and ``cells``: the two stages of training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.training.cli.commands.decoder import train_cell_decoder
from scpalm.training.cli.commands.views import train_view_head
from scpalm.training.cli.console import command, key_value, progress_bar, train_with_bar
from scpalm.training.cli.finished import Training

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="key=value; may be repeated. See training/README.md.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:n.")]


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
