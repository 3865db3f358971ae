"""For commands that train a part on top of a finished stage 1: opens the run, its corpus and its stage 1."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from scpalm.training.cli.console import key_value

if TYPE_CHECKING:
    import torch

    from scpalm.model.network.pathways import PathwayAutoencoder
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.runs.config import OptimizerConfig
    from scpalm.training.runs.run import Run

Config = TypeVar("Config", bound="OptimizerConfig")


@dataclass(frozen=True, eq=False)
class Training(Generic[Config]):
    """What such a command trains with."""

    run: Run
    corpus: Corpus
    stage1: PathwayAutoencoder
    config: Config
    device: torch.device


@dataclass(frozen=True)
class Choices:
    """What the user chose on the command line."""

    steps: int | None
    settings: list[str] | None
    resume: bool
    device: str


def open_finished(run_dir: Path, stage: str, default: Config, choices: Choices) -> Training[Config]:
    """Open a run for a stage whose options are ``default``, changed as the user chose. Raises RunError, ConfigError."""
    from scpalm.model.network.config import NetworkConfig
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.runs.config import override
    from scpalm.training.runs.processes import local_device
    from scpalm.training.runs.run import Run, RunError, pick_device
    from scpalm.training.stages.stage1 import load_stage1

    run, where = Run(run_dir), local_device(pick_device(choices.device))
    saved = run.config()
    if choices.resume and choices.settings:
        raise RunError(f"--set cannot change a run that is resumed; train the {stage} again.")
    config = run.section(stage, type(default)) if choices.resume and stage in saved else default
    config = override(config, dict(key_value(text) for text in choices.settings or []))
    if choices.steps is not None:
        config = override(config, {"steps": str(choices.steps)})
    corpus = Corpus(saved["corpus"])
    run.check_corpus(corpus.path, corpus.digest)
    run.finished("stage1")
    return Training(run, corpus, load_stage1(run, run.section("network", NetworkConfig)), config, where)


def save_section(training: Training[Config], stage: str) -> None:
    """Record the options of a stage in the run; every process waits for it."""
    from scpalm.training.runs.config import as_dict
    from scpalm.training.runs.processes import barrier, is_first

    if is_first():
        training.run.save_config(training.run.config() | {stage: as_dict(training.config)})
    barrier()
