"""Make the trainer of any stage of a run, for training by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.read_out import LinearReadOut
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.sampler import Sampler
from scpalm.training.runs.config import Stage1Config, Stage2Config
from scpalm.training.runs.decoder_config import DecoderConfig
from scpalm.training.runs.run import Run, RunError
from scpalm.training.runs.trainer import StageTrainer
from scpalm.training.stages.basis import read_out_of
from scpalm.training.stages.code_cache import cache_cells, cache_key, read_cache, write_cache
from scpalm.training.stages.corpus_statistics import Scores, Yardsticks, gene_means
from scpalm.training.stages.decoder import DecoderTrainer
from scpalm.training.stages.stage1 import Stage1Trainer, load_stage1
from scpalm.training.stages.stage2 import Stage2Trainer


def make_trainer(stage: str, corpus: Corpus, run: Run, device: torch.device) -> StageTrainer[Any]:
    """A trainer at step 0, with the options in ``config.json``. No yardstick of PCA is fitted.

    Raises RunError if the run lacks the stages before it.
    """
    network = run.section("network", NetworkConfig)
    if stage == "stage1":
        return Stage1Trainer(corpus, network, run.section(stage, Stage1Config), device, with_pca=False)
    run.finished("stage1")
    stage1 = load_stage1(run, network)
    if isinstance(stage1.embedding, LinearReadOut):
        stage1.embedding.prepare(corpus.measured)
    if stage == "decoder":
        return DecoderTrainer(corpus, stage1, run.section(stage, DecoderConfig), device)
    if stage != "stage2":
        raise RunError(f"'{stage}' is no stage that is trained by the clock.")
    config = run.section(stage, Stage2Config)
    kept, mark = run.path / "codes.npz", cache_key(corpus, stage1, config)
    cache = read_cache(kept, mark)
    if cache is None:
        sampler = Sampler(corpus, power=config.tissue_power, seed=config.seed, simulated_share=config.simulated_share)
        scores = Scores(corpus, sampler, read_out_of(stage1, corpus, config))
        cache = cache_cells(corpus, stage1, scores, config, device)
        write_cache(kept, mark, cache)
    yardsticks = Yardsticks(corpus, gene_means(corpus, corpus.train_rows), None)
    return Stage2Trainer(corpus, stage1, config, device, cache, yardsticks)


def resume(trainer: StageTrainer[Any], state: Mapping[str, Any]) -> None:
    """Continue from a checkpoint, or from weights alone; then the optimizer and the queue start again.

    Raises RunError when it does not fit.
    """
    try:
        trainer.restore(trainer.state() | dict(state))
    except (KeyError, RuntimeError, ValueError) as error:
        raise RunError(f"The checkpoint of {trainer.stage} does not fit the network ({error}).") from error
    if "planned" in state:
        trainer.plan(int(state["planned"]))
