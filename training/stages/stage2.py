"""Stage 2: train the cell token on cached pathway codes (paper 3.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from scpalm.model.network.cells import CellDecoder, CellEncoder
from scpalm.model.network.collective import all_gather_rows, all_reduce_sum, rank, world_size
from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.batches import Feed, WholeCells
from scpalm.training.data.code_views import Stage2Batches, ViewDraw, draw_view
from scpalm.training.data.sampler import Sampler
from scpalm.training.data.transfer import DeviceFeed, to_device
from scpalm.training.runs.config import Stage2Config
from scpalm.training.runs.processes import any_process, is_first, slices_of_process
from scpalm.training.runs.run import Run
from scpalm.training.runs.trainer import Progress, StageTrainer, run_loop
from scpalm.training.stages.basis import read_out_of
from scpalm.training.stages.code_cache import (
    CodeCache,
    DeviceCache,
    cache_cells,
    cache_key,
    read_cache,
    write_cache,
)
from scpalm.training.stages.contrastive import ClusterQueue, info_nce, pick_negatives
from scpalm.training.stages.corpus_statistics import (
    Scores,
    Yardsticks,
    gene_means,
    masked_sum,
    singular_vectors,
)
from scpalm.training.stages.linear_start import start_linear

STAGE = "stage2"


@dataclass
class View:
    """A batch of code tokens, and which of them are kept.

    Attributes:
        tokens: ``[B, N, D]``. kept: ``[B, n]`` sorted positions. scores: ``[B, M]`` of counts not behind the codes.
    """

    tokens: Tensor
    kept: Tensor
    scores: Tensor

    def of(self, cells: slice) -> View:
        """The view of some of the cells."""
        return View(self.tokens[cells], self.kept[cells], self.scores[cells])


class Stage2Network(nn.Module):
    """Encoder and decoder in one forward pass: everything that a step differentiates."""

    def __init__(self, encoder: CellEncoder, decoder: CellDecoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, view: View, other: View | None) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """``h_C [B, D]`` and values ``[B, G]`` of the first view; ``h_C`` and scores ``[B, N]`` of the second."""
        cell, tokens = self.encoder(view.tokens, view.kept)
        values = self.decoder(cell, tokens, view.kept)
        if other is None:
            return cell, values, None, None
        again, _ = self.encoder(other.tokens, other.kept)
        return cell, values, again, self.decoder.scores(again)


@dataclass
class Part:
    """Some cells of a batch.

    Attributes:
        whole: cells to reconstruct. view, other: two views of them. mask: ``[B, G]`` bool, genes left out.
        weight: number of left-out values in the whole batch. first: whether this is the first part of the step.
    """

    whole: SparseCells
    view: View
    other: View
    mask: Tensor
    weight: Tensor
    first: bool


class Stage2Trainer(StageTrainer[Part]):
    """Trains the cell encoder and decoder on cached codes; stage 1 is frozen."""

    stage = STAGE

    def __init__(
        self,
        corpus: Corpus,
        stage1: PathwayAutoencoder,
        config: Stage2Config,
        device: torch.device,
        cache: CodeCache,
        yardsticks: Yardsticks,
    ) -> None:
        torch.manual_seed(config.seed + 1)
        network = stage1.config
        self.corpus, self.config = corpus, config
        self.stage1 = stage1.to(device).eval().requires_grad_(requires_grad=False)
        self.cache = cache
        self._cached = DeviceCache(cache, device)
        self.yardsticks = yardsticks
        self.sampler = Sampler(
            corpus,
            power=config.tissue_power,
            seed=config.seed,
            block=config.block,
            balance_by=config.balance_by,
            simulated_share=config.simulated_share,
        )
        self.encoder = CellEncoder(network)
        self.decoder = CellDecoder(network)
        # The decoder starts from stage 1's, which solves nearly the same task.
        self.decoder.transformer.load_state_dict(stage1.decoder.state_dict())
        self.decoder.head.load_state_dict(stage1.head.state_dict())
        with torch.no_grad():
            self.decoder.position.copy_(stage1.decoder_position)
        if config.linear_start:
            start_linear(self.encoder, self.decoder, self.stage1, cache, self.sampler)
        self.encoder.to(device)
        self.decoder.to(device)
        if config.score_weight == 0:
            self.decoder.scores.requires_grad_(requires_grad=False)
        self.queue = ClusterQueue(config.queue, network.width, config.clusters, device)
        self._shares = slices_of_process(config.batch_size, config.accumulate)
        whole = WholeCells(corpus, self.sampler, config, self._shares)
        batches = Stage2Batches(whole, config, network.num_tokens)
        self._feed = DeviceFeed(Feed(batches, config.steps, config.workers), device)
        super().__init__(
            config,
            device,
            Stage2Network(self.encoder, self.decoder),
            {"encoder": self.encoder, "decoder": self.decoder},
            (self.encoder.transformer, self.decoder.transformer),
            len(corpus.held_out_rows),
        )

    @property
    def model(self) -> CellEncoder:
        return self.encoder

    def _view(self, rows: NDArray[np.int64], share: float, rng: np.random.Generator) -> View:
        drawn = draw_view(rows, share, self.cache.codes.shape[2], self.config, rng)
        return self._seen(to_device(drawn, self.device))

    def _seen(self, drawn: ViewDraw) -> View:
        codes, scores = self._cached.at(drawn.replica, drawn.row)
        return View(self.stage1.quantizer.decompress(codes), drawn.kept, scores)

    def _left_out(self, kept: Tensor) -> Tensor:
        """``[B, G]`` bool: genes whose token was left out (token i owns genes ``[S i, S (i + 1))``)."""
        config = self.stage1.config
        token = torch.ones(len(kept), config.num_tokens, dtype=torch.bool, device=kept.device)
        token.scatter_(1, kept, value=False)
        genes = token[:, :, None].expand(-1, -1, config.genes_per_token)
        return genes.reshape(len(kept), -1)[:, : config.num_genes]

    def parts(self, step: int) -> list[Part]:
        """See ``StageTrainer``."""
        batch = self._feed.at(step)
        view, other = self._seen(batch.view), self._seen(batch.other)
        parts: list[Part] = []
        for share, whole in zip(self._shares, batch.cells, strict=True):
            mask = self._left_out(view.kept[share]) & whole.measured
            parts.append(Part(whole, view.of(share), other.of(share), mask, weight=mask.new_zeros(()), first=not parts))
        weight = all_reduce_sum(torch.stack([part.mask.sum() for part in parts]).sum().float())
        for part in parts:
            part.weight = weight.clamp(min=1)
        return parts

    def loss(self, part: Part) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``StageTrainer``."""
        config = self.config
        other = part.other if config.score_weight > 0 or config.contrastive > 0 else None
        with self.autocast():
            cell, values, again, predicted = self.network(part.view, other)
            squares = masked_sum(values.float(), part.whole.dense(self.corpus.num_genes), part.mask)
        error = squares / part.weight * world_size()
        loss = error / (self.yardsticks.gene_mean if math.isfinite(self.yardsticks.gene_mean) else 1.0)
        scalars = {"mse": error}
        if config.score_weight > 0 and predicted is not None:
            # On the second view, which by default has all tokens (view_share 1), as in inference.
            scores = part.other.scores
            score_error = F.mse_loss(predicted.float()[:, : scores.shape[1]], scores) / config.accumulate
            loss = loss + config.score_weight * score_error
            scalars["score_mse"] = score_error
        if config.contrastive > 0 and again is not None:
            contrast = self._contrast(cell.float(), again.float(), first=part.first)
            if contrast is not None:
                scalars["contrastive"] = contrast / config.accumulate
                loss = loss + config.contrastive * scalars["contrastive"]
        return loss, scalars

    def _contrast(self, cell: Tensor, again: Tensor, *, first: bool) -> Tensor | None:
        """InfoNCE among the cells of this part in all processes, or None until enough cells are queued."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        all_cells = all_gather_rows(cell)
        self.queue.add(all_cells)
        if self.queue.filled < config.queue_start:
            return None
        if not self.queue.ready or (first and self.step % config.refit_every == 0):
            self.queue.refit(generator)
        negative = pick_negatives(self.queue.assign(all_cells), config.negatives, generator)
        # Every process computes the term of all cells: the mean over processes is that of the whole batch.
        return info_nce(all_cells, all_gather_rows(again), negative, config.temperature)

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Held-out error of left-out regions, with yardsticks on all regions."""
        rows = self.corpus.held_out_rows
        if not len(rows):
            return {}
        rng = np.random.default_rng([self.config.seed, 99])
        sums = torch.zeros(2, dtype=torch.float64)
        for number, start in enumerate(range(0, len(rows), self.config.batch_size)):
            part = rows[start : start + self.config.batch_size]
            view = self._view(part, self.config.token_share, rng)
            if number % world_size() != rank():
                continue
            whole = to_device(self.corpus.batch(part), self.device)
            cell, tokens = self.encoder(view.tokens, view.kept)
            values = self.decoder(cell, tokens, view.kept)
            mask = self._left_out(view.kept) & whole.measured
            squares = masked_sum(values, whole.dense(self.corpus.num_genes), mask)
            sums += torch.tensor([float(squares), float(mask.sum())], dtype=torch.float64)
        error, weight = all_reduce_sum(sums).tolist()
        return {
            "held_out_mse": error / weight,
            "gene_mean_mse": self.yardsticks.gene_mean,
            "pca_mse": self.yardsticks.pca,
        }

    def state(self) -> dict[str, object]:
        """See ``StageTrainer``."""
        return super().state() | {"queue": self.queue.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``StageTrainer``."""
        super().restore(state)
        self.queue.restore(state["queue"])

    def close(self) -> None:
        """See ``StageTrainer``."""
        self._feed.close()


def prepare_stage2(
    corpus: Corpus,
    stage1: PathwayAutoencoder,
    config: Stage2Config,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
    kept: Path | None = None,
) -> Stage2Trainer:
    """Encode the corpus with the frozen stage 1 and make a trainer at step 0.

    ``kept`` is a file that keeps the encoded cells for the next call (``--resume``, or stage 2 with other options). It
    is used only when it was made from the same weights, cells and options.
    """
    sampler = Sampler(corpus, power=config.tissue_power, seed=config.seed, simulated_share=config.simulated_share)
    vectors = singular_vectors(corpus, sampler, min(stage1.config.num_tokens, corpus.num_genes - 1))
    scores = Scores(corpus, sampler, read_out_of(stage1, corpus, config))
    yardsticks = Yardsticks(corpus, gene_means(corpus, corpus.train_rows), vectors)
    mark = cache_key(corpus, stage1, config)
    cache = read_cache(kept, mark)
    # If any process lacks a valid file, as on another machine, all of them encode and share the work.
    if any_process(flag=cache is None) or cache is None:
        cache = cache_cells(corpus, stage1, scores, config, device, progress)
        if kept is not None and is_first():
            write_cache(kept, mark, cache)
    return Stage2Trainer(corpus, stage1, config, device, cache, yardsticks)


def train_cells(trainer: Stage2Trainer, run: Run, progress: Progress = lambda step, scalars: None) -> None:
    """Train to the end, with a checkpoint every ``checkpoint_every`` steps."""
    run_loop(trainer, run, trainer.config, progress)
