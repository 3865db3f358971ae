"""Stage 1: train the pathway autoencoder (paper 3.2)."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from scpalm.model.network.collective import all_reduce_sum, broadcast_from_first, rank, world_size
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.embedding import GeneEmbedding, SparseCells
from scpalm.model.network.pathways import PathwayAutoencoder, Reconstruction
from scpalm.model.network.read_out import LinearReadOut
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.batches import Feed, ThinnedCells
from scpalm.training.data.sampler import Sampler
from scpalm.training.data.transfer import DeviceFeed, to_device
from scpalm.training.runs.config import ConfigError, Stage1Config
from scpalm.training.runs.processes import slices_of_process
from scpalm.training.runs.run import Run, RunError
from scpalm.training.runs.trainer import Progress, StageTrainer, run_loop
from scpalm.training.stages.basis import fit_basis
from scpalm.training.stages.corpus_statistics import (
    Scores,
    Yardsticks,
    as_tensor,
    gene_means,
    masked_sum,
    singular_vectors,
)

STAGE = "stage1"


@dataclass
class Part:
    """Some cells of a batch.

    Attributes:
        cells: to embed, some of them thinned. whole: the same cells unthinned, to reconstruct.
        weight: number of measured values in the whole batch, which divides the part's sum of errors.
    """

    cells: SparseCells
    whole: SparseCells
    weight: Tensor


class Stage1Trainer(StageTrainer[Part]):
    """Trains stage 1 on a corpus, from the spectral start.

    Args:
        with_pca: also fit the PCA whose error ``measure`` reports. It takes a minute or two, and training with
            pooling=solve does not need it.
    """

    stage = STAGE

    def __init__(
        self,
        corpus: Corpus,
        network: NetworkConfig,
        config: Stage1Config,
        device: torch.device,
        *,
        with_pca: bool = True,
    ) -> None:
        torch.manual_seed(config.seed)
        self.corpus, self.config = corpus, config
        self.sampler = Sampler(
            corpus,
            power=config.tissue_power,
            seed=config.seed,
            block=config.block,
            balance_by=config.balance_by,
            simulated_share=config.simulated_share,
        )
        self.model = PathwayAutoencoder(network)
        self.model.quantizer.sync = config.sync_update
        self.model.quantizer.patience = config.patience
        means = gene_means(corpus, corpus.train_rows)
        vectors = None
        if with_pca or network.pooling != "solve":
            vectors = singular_vectors(corpus, self.sampler, min(network.num_tokens, network.num_genes - 1))
        self.yardsticks = Yardsticks(corpus, means, vectors)
        with torch.no_grad():
            self.model.head.bias.copy_(as_tensor(means))
        read_out = LinearReadOut(network)
        share = config.simulated_share
        read_out.load(fit_basis(corpus, network, seed=config.seed, simulated_share=share, device=device))
        read_out.prepare(corpus.measured)
        self._start_embedding(read_out, vectors)
        self.scores = Scores(corpus, self.sampler, read_out).to(device)
        self.model.to(device)
        if config.score_weight == 0:
            self.model.score_weight.requires_grad = False
            self.model.score_bias.requires_grad = False
        slices = slices_of_process(config.batch_size, config.accumulate)
        thinned = ThinnedCells(corpus, self.sampler, config, slices)
        self._feed = DeviceFeed(Feed(thinned, config.steps, config.workers), device)
        # Statistics and codes start from whole batches, which every process reads.
        self._whole_batches = ThinnedCells(corpus, self.sampler, config, [slice(0, config.batch_size)])
        self._revived = torch.zeros((), dtype=torch.int64, device=device)
        self.codes_started = False
        self._seen: list[tuple[Tensor, Tensor]] = []
        if config.spectral_start:
            self._start_statistics(device)
        compiled = (self.model.encoder, self.model.decoder)
        super().__init__(config, device, self.model, {"model": self.model}, compiled, len(corpus.held_out_rows))

    def _start_embedding(self, read_out: LinearReadOut, vectors: NDArray[np.float32] | None) -> None:
        embedding, config = self.model.embedding, self.config
        if isinstance(embedding, LinearReadOut):
            if config.train_embedding or not config.spectral_start:
                raise ConfigError("pooling=solve is not trained: leave out train_embedding and spectral_start.")
            self.model.embedding = read_out
            return
        if config.spectral_start and vectors is not None:
            # Unit columns have tiny entries. Scaled so that f has the spread of the paper's random start.
            embedding.spectral_start(as_tensor(vectors) * math.sqrt(self.model.config.num_genes))
        if not config.train_embedding:
            embedding.freeze()

    def _start_cells(self, number: int, device: torch.device) -> SparseCells:
        """Cells of a batch that no training step draws."""
        return to_device(self._whole_batches((-1 - number) % 2**31)[0][0], device)

    @torch.no_grad()
    def _start_statistics(self, device: torch.device, batches: int = 32) -> None:
        f = torch.cat([self.model.embedding(self._start_cells(i, device)) for i in range(batches)])
        self.model.standardise.running_mean.copy_(f.mean(0))
        self.model.standardise.running_var.copy_(f.var(0))

    @property
    def quantizing(self) -> bool:
        return self.config.quantizer and (self.codes_started or self.step >= self.quantizer_step)

    @property
    def quantizer_step(self) -> int:
        return int(self.config.quantizer_start * self.planned_steps)

    def parts(self, step: int) -> list[Part]:
        """See ``StageTrainer``."""
        if self.quantizing and not self.codes_started:
            self._start_codes()
        pairs = self._feed.at(step)
        weight = all_reduce_sum(torch.stack([whole.measured.sum() for _, whole in pairs]).sum().float())
        return [Part(cells, whole, weight) for cells, whole in pairs]

    def loss(self, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``StageTrainer``."""
        config = self.config
        target = part.whole.dense(self.corpus.num_genes)
        with self.autocast():
            out: Reconstruction = self.network(part.cells, quantize=self.quantizing)
            squares = masked_sum(out.values.float(), target, part.whole.measured)
        error = squares / part.weight * world_size()
        loss = error / (self.yardsticks.gene_mean if math.isfinite(self.yardsticks.gene_mean) else 1.0)
        scalars = {"mse": error}
        if config.score_weight > 0:
            predicted = out.scores.float()[:, : self.scores.count]
            score_error = F.mse_loss(predicted, self.scores.of(part.whole)) / config.accumulate
            loss = loss + config.score_weight * score_error
            scalars["score_mse"] = score_error
        if out.quantized is not None:
            quantized = out.quantized
            loss = loss + config.commitment * quantized.loss / config.accumulate
            scalars |= {
                "commitment": quantized.loss / config.accumulate,
                "distance": quantized.distance / config.accumulate,
            }
            self._seen.append((out.encoded.detach(), quantized.indices))
        return loss, scalars

    @property
    def revived(self) -> int:
        """Number of revived codes so far. Waits for the device."""
        return int(self._revived)

    def after_step(self) -> None:
        """Revive codes that nothing has chosen for a while."""
        seen, self._seen = self._seen, []
        if seen and self.config.revive:
            encoded, indices = (torch.cat(tensors) for tensors in zip(*seen, strict=True))
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
            revived = self.model.quantizer.revive(encoded, indices, generator)
            self._revived += revived
            if self.average is not None:
                self.average.jump([self.model.quantizer.codes], when=revived > 0)

    @torch.no_grad()
    def _start_codes(self, batches: int = 8) -> None:
        self.model.eval()
        cells = [self._start_cells(1000 + i, self.device) for i in range(batches)]
        encoded = torch.cat([self.model.encode_read_out(self.model.read_out(part)) for part in cells])
        self.codes_started = True
        started = copy.deepcopy(self.model.quantizer).cpu()  # on the CPU, so that k-means does not depend on the device
        started.initialise(encoded.cpu(), torch.Generator().manual_seed(self.config.seed))
        self.model.quantizer.load_state_dict(started.state_dict())
        for tensor in (*self.model.quantizer.parameters(), *self.model.quantizer.buffers()):
            broadcast_from_first(tensor)
        if self.average is not None:
            self.average.jump(self.model.quantizer.parameters())
        self.model.train()

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Held-out error with yardsticks, used codes, perplexity. Raises RunError when the codes have collapsed."""
        rows = self.corpus.held_out_rows
        if not len(rows):
            return {}
        own_rows = rows[rank() :: world_size()]
        sums = torch.zeros(3, dtype=torch.float64)  # squared errors, score errors, measured values
        usage = torch.zeros(len(self.model.quantizer.codes), dtype=torch.float64)
        for start in range(0, len(own_rows), self.config.batch_size):
            batch = to_device(self.corpus.batch(own_rows[start : start + self.config.batch_size]), self.device)
            out = self.model(batch, quantize=self.quantizing)
            weight = float(batch.measured.sum())
            score_error = F.mse_loss(out.scores[:, : self.scores.count], self.scores.of(batch))
            squares = masked_sum(out.values, batch.dense(self.corpus.num_genes), batch.measured)
            sums += torch.tensor([float(squares), float(score_error) * weight, weight], dtype=torch.float64)
            if out.quantized is not None:
                usage += torch.bincount(out.quantized.indices.reshape(-1).cpu(), minlength=len(usage))
        error, score_error, weight = all_reduce_sum(sums).tolist()
        scalars = {
            "held_out_mse": error / weight,
            "held_out_score_mse": score_error / weight,
            "gene_mean_mse": self.yardsticks.gene_mean,
            "pca_mse": self.yardsticks.pca,
        }
        return scalars | (self._code_usage(all_reduce_sum(usage)) if self.quantizing else {})

    def _code_usage(self, usage: Tensor) -> dict[str, float]:
        share = usage / usage.sum()
        used = int((usage > 0).sum())
        if used < 2 and self.step > self.quantizer_step + 10 * self.config.patience:
            raise RunError(
                f"The codes collapsed: {used} in use at step {self.step}. Try a longer quantizer_start, "
                "a smaller code_width (4-16) or a lower lr."
            )
        perplexity = float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))
        return {"used_codes": used, "perplexity": perplexity, "revived": self.revived}

    def state(self) -> dict[str, object]:
        """See ``StageTrainer``."""
        return super().state() | {"revived": self.revived, "codes_started": self.codes_started}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``StageTrainer``."""
        super().restore(state)
        self._revived.fill_(int(state["revived"]))
        self.codes_started = bool(state["codes_started"])

    def load_weights(self, state: Mapping[str, Any]) -> None:
        """See ``StageTrainer``."""
        super().load_weights(state)
        if isinstance(self.model.embedding, GeneEmbedding) and not self.config.train_embedding:
            self.model.embedding.freeze()

    def close(self) -> None:
        """See ``StageTrainer``."""
        self._feed.close()


def train_pathways(trainer: Stage1Trainer, run: Run, progress: Progress = lambda step, scalars: None) -> None:
    """Train to the end, with a checkpoint every ``checkpoint_every`` steps (a Ctrl-C writes one more)."""
    run_loop(trainer, run, trainer.config, progress)


def load_stage1(run: Run, network: NetworkConfig) -> PathwayAutoencoder:
    """The trained stage 1 of a run. Raises RunError when it is missing, damaged or has no codes."""
    if not run.section("stage1", Stage1Config).quantizer:
        raise RunError(
            f"{run.path}: stage 1 was trained with quantizer=false, so its cells have no codes. Stage 2 and a "
            "bundle need them: train it with quantizer=true."
        )
    model = PathwayAutoencoder(network)
    run.fill(model, "stage1", "model")
    return model.eval()
