"""Train the decoder that imputation serves: it reads f and the codes of a finished stage 1."""

from __future__ import annotations

import torch
from torch import Tensor

from scpalm.model.network.collective import all_reduce_sum, rank, world_size
from scpalm.model.network.decoder import CellDecoder
from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.read_out import LinearReadOut, unit
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.batches import Feed, ThinnedCells
from scpalm.training.data.sampler import Sampler
from scpalm.training.data.transfer import DeviceFeed, to_device
from scpalm.training.runs.decoder_config import DecoderConfig
from scpalm.training.runs.processes import slices_of_process
from scpalm.training.runs.run import Run
from scpalm.training.runs.trainer import Progress, StageTrainer, run_loop
from scpalm.training.stages.corpus_statistics import masked_sum
from scpalm.training.stages.stage1 import Part

STAGE = "decoder"


class DecoderTrainer(StageTrainer[Part]):
    """Squared error of the whole cell, decoded from the codes and f of the thinned cell. Stage 1 does not change."""

    stage = STAGE

    def __init__(self, corpus: Corpus, stage1: PathwayAutoencoder, config: DecoderConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed + 3)
        assert isinstance(stage1.embedding, LinearReadOut)
        self.config, self._corpus = config, corpus
        self._stage1 = stage1.to(device).eval().requires_grad_(requires_grad=False)
        self._read_out = stage1.embedding
        sampler = Sampler(
            corpus,
            power=config.tissue_power,
            seed=config.seed + 3,
            block=config.block,
            balance_by=config.balance_by,
            simulated_share=config.simulated_share,
        )
        slices = slices_of_process(config.batch_size, config.accumulate)
        thinned = ThinnedCells(corpus, sampler, config, slices)
        self._feed = DeviceFeed(Feed(thinned, config.steps, config.workers), device)
        decoder = CellDecoder(stage1.config)
        decoder.start(stage1)
        decoder.to(device)
        super().__init__(config, device, decoder, {"decoder": decoder}, [decoder.decoder], len(corpus.held_out_rows))

    def parts(self, step: int) -> list[Part]:
        """See ``StageTrainer``."""
        pairs = self._feed.at(step)
        weight = all_reduce_sum(torch.stack([whole.measured.sum() for _, whole in pairs]).sum().float())
        return [Part(cells, whole, weight) for cells, whole in pairs]

    def loss(self, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``StageTrainer``."""
        target = part.whole.dense(self._corpus.num_genes)
        inputs = self._inputs(part.cells)
        with self.autocast():
            values = self.network(*inputs)
        error = masked_sum(values.float(), target, part.whole.measured) / part.weight * world_size()
        return error, {"mse": error}

    @torch.no_grad()
    def _inputs(self, cells: SparseCells) -> tuple[Tensor, Tensor, Tensor]:
        f, log_length = unit(self._read_out.scores(cells))
        stage1, quantizer = self._stage1, self._stage1.quantizer
        codes = stage1.encode(cells)
        return quantizer.up(quantizer.table())[codes], f, log_length

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Held-out error of whole cells."""
        rows = self._corpus.held_out_rows
        if not len(rows):
            return {}
        own_rows = rows[rank() :: world_size()]
        sums = torch.zeros(2, dtype=torch.float64)
        for start in range(0, len(own_rows), self.config.batch_size):
            batch = to_device(self._corpus.batch(own_rows[start : start + self.config.batch_size]), self.device)
            values = self.network(*self._inputs(batch)).float()
            squares = masked_sum(values, batch.dense(self._corpus.num_genes), batch.measured)
            sums += torch.tensor([float(squares), float(batch.measured.sum())], dtype=torch.float64)
        error, weight = all_reduce_sum(sums).tolist()
        return {"held_out_mse": error / weight}

    def close(self) -> None:
        """See ``StageTrainer``."""
        self._feed.close()


def train_decoder(trainer: DecoderTrainer, run: Run, progress: Progress = lambda step, scalars: None) -> None:
    """Train to the end, with a checkpoint every ``checkpoint_every`` steps."""
    run_loop(trainer, run, trainer.config, progress)
