"""Stage 2: train the cell token on cached pathway codes (paper 3.3)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from model.cells import CellDecoder, CellEncoder
from model.config import NetworkConfig
from model.pathways import PathwayAutoencoder
from training.baselines import SpectralScores, Yardsticks, gene_means, masked_error, singular_vectors
from training.cached_cells import Cache, cache_cells, mark_of, read_cache, write_cache
from training.config import Stage1Config, Stage2Config
from training.contrastive import ClusterQueue, info_nce, pick_negatives
from training.corpus import Corpus, Sampler
from training.run import Run, RunError, check_finite, make_optimizer, set_lr
from training.stage1 import Progress, run_loop, to_device

STAGE = "stage2"


@torch.no_grad()
def start_linear(
    encoder: CellEncoder, decoder: CellDecoder, stage1: PathwayAutoencoder, cache: Cache, sampler: Sampler
) -> None:
    """Start h_C as the best linear prediction of the scores of unseen counts from the codes (ridge, closed form)."""
    quantizer, width = copy.deepcopy(stage1.quantizer).cpu(), stage1.config.width
    if isinstance(quantizer.up, nn.Linear):  # back from tokens to code space
        inverse = torch.linalg.pinv(quantizer.up.weight)
        encoder.narrow.weight.copy_(inverse)
        encoder.narrow.bias.copy_(-inverse @ quantizer.up.bias)
    else:
        encoder.narrow.weight.copy_(torch.eye(width))
        encoder.narrow.bias.zero_()
    rows = sampler.draw(2**31 + 2, min(12288, 4 * len(sampler.rows)))
    tokens = [quantizer.from_indices(torch.from_numpy(codes[rows].astype(np.int64))) for codes in cache.codes]
    encoder.token_mean.copy_(encoder.narrow(tokens[0]).mean(0))
    features = torch.cat([encoder.features(part).flatten(1) for part in tokens])
    scores = torch.cat([torch.from_numpy(part[rows]) for part in cache.scores])
    count = min(width, scores.shape[1])
    read_in = _ridge(features, scores[:, :count])
    encoder.read_in.zero_()
    encoder.read_in[:, :, :count] = read_in.reshape(*encoder.read_in.shape[:2], count)
    encoder.cell_token[:count] = scores[:, :count].mean(0) - features.mean(0) @ read_in
    h = encoder.transformer.norm(encoder.cell_token + features @ encoder.read_in.flatten(0, 1))
    centred = h - h.mean(0)
    weight = _ridge(centred, scores)
    decoder.scores.weight[: scores.shape[1]] = weight.T
    decoder.scores.bias[: scores.shape[1]] = scores.mean(0) - h.mean(0) @ weight


def _ridge(x: Tensor, y: Tensor, strength: float = 30.0) -> Tensor:
    """``[features, targets]`` weights of y on x, in double precision; means are left to the caller."""
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    gram = x.T @ x + strength * torch.eye(x.shape[1], dtype=torch.float64)
    return torch.linalg.solve(gram, x.T @ y).float()


@dataclass
class View:
    """Codes of a batch and the tokens kept of them.

    Attributes:
        tokens: ``[B, N, D]``. kept: ``[B, n]`` sorted positions. scores: ``[B, M]`` of the counts they have not seen.
    """

    tokens: Tensor
    kept: Tensor
    scores: Tensor


class Stage2Trainer:
    """Trains the cell encoder and its decoder; stage 1 is frozen."""

    def __init__(
        self,
        corpus: Corpus,
        stage1: PathwayAutoencoder,
        config: Stage2Config,
        device: torch.device,
        cache: Cache,
        yardsticks: Yardsticks,
    ) -> None:
        torch.manual_seed(config.seed + 1)
        network = stage1.config
        self.corpus, self.config, self.device = corpus, config, device
        self.stage1 = stage1.to(device).eval().requires_grad_(False)
        self.cache = cache
        self.yardsticks = yardsticks
        self.sampler = Sampler(corpus, power=config.tissue_power, seed=config.seed)
        self.encoder = CellEncoder(network)
        self.decoder = CellDecoder(network)
        # The decoder starts where stage 1's ended: it solves nearly the same task.
        self.decoder.transformer.load_state_dict(stage1.decoder.state_dict())
        self.decoder.head.load_state_dict(stage1.head.state_dict())
        with torch.no_grad():
            self.decoder.position.copy_(stage1.decoder_position)
        if config.linear_start:
            start_linear(self.encoder, self.decoder, self.stage1, cache, self.sampler)
        self.encoder.to(device)
        self.decoder.to(device)
        self.table = self.stage1.quantizer.up(self.stage1.quantizer.table()).detach()  # [K, D]
        self.queue = ClusterQueue(config.queue, network.width, config.clusters)
        self.optimizer = make_optimizer([self.encoder, self.decoder], config)
        self.step = 0

    @property
    def model(self) -> CellEncoder:
        return self.encoder

    def _view(self, rows: NDArray[np.int64], share: float, rng: np.random.Generator) -> View:
        N = self.cache.codes.shape[2]
        thinned = rng.random(len(rows)) < self.config.thin_share
        replica = np.where(thinned, rng.integers(min(1, self.config.replicas - 1), self.config.replicas, len(rows)), 0)
        indices = torch.from_numpy(self.cache.codes[replica, rows].astype(np.int64)).to(self.device)
        count = min(max(round(share * N), 1), N)
        kept = np.sort(rng.random((len(rows), N)).argsort(axis=1)[:, :count], axis=1)
        scores = torch.from_numpy(self.cache.scores[replica, rows]).to(self.device)
        return View(self.table[indices], torch.from_numpy(kept).to(self.device), scores)

    def _left_out(self, kept: Tensor) -> Tensor:
        """``[B, G]`` bool: genes whose token was left out (token i owns genes ``[S i, S (i + 1))``)."""
        config = self.stage1.config
        token = torch.ones(len(kept), config.num_tokens, dtype=torch.bool, device=kept.device).scatter_(1, kept, False)
        return token.repeat_interleave(config.genes_per_token, dim=1)[:, : config.num_genes]

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        return (
            torch.autocast("cuda", torch.bfloat16) if self.config.bf16 and self.device.type == "cuda" else nullcontext()
        )

    def train_step(self) -> dict[str, float]:
        """One batch; the scalars of the step."""
        config = self.config
        self.encoder.train()
        self.decoder.train()
        rows = self.sampler.draw(self.step, config.batch_size)
        rng = self.sampler.generator(self.step, purpose=2)
        whole = to_device(self.corpus.batch(rows), self.device)
        view, other = self._view(rows, config.token_share, rng), self._view(rows, config.view_share, rng)
        mask = self._left_out(view.kept) & whole.measured
        with self._autocast():
            cell, tokens = self.encoder(view.tokens, view.kept)
            values = self.decoder(cell, tokens, view.kept)
            error = masked_error(values.float(), whole.dense(self.corpus.num_genes), mask)
            loss = error / (self.yardsticks.gene_mean if math.isfinite(self.yardsticks.gene_mean) else 1.0)
            scalars = {"mse": float(error.detach())}
            again, _ = self.encoder(other.tokens, other.kept)
            if config.score_weight > 0:
                # On the second view: with all tokens (view_share 1), as in inference.
                predicted = self.decoder.scores(again).float()[:, : other.scores.shape[1]]
                score_error = F.mse_loss(predicted, other.scores)
                loss = loss + config.score_weight * score_error
                scalars["score_mse"] = float(score_error.detach())
            if config.contrastive > 0:
                loss, scalars = self._contrast(loss, scalars, cell, again)
        check_finite(loss, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        check_finite(torch.nn.utils.clip_grad_norm_(parameters, config.clip), self.step)
        scalars["lr"] = set_lr(self.optimizer, config, self.step)
        self.optimizer.step()
        self.step += 1
        return scalars

    def _contrast(
        self, loss: Tensor, scalars: dict[str, float], cell: Tensor, again: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        config = self.config
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + self.step)
        self.queue.add(cell)
        if self.queue.filled < config.queue_start:
            return loss, scalars
        if not self.queue.ready or self.step % config.refit_every == 0:
            self.queue.refit(generator)
        negative = pick_negatives(self.queue.assign(cell), config.negatives, generator)
        contrast = info_nce(cell.float(), again.float(), negative, config.temperature)
        return loss + config.contrastive * contrast, scalars | {"contrastive": float(contrast.detach())}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out error of left-out regions, beside its yardsticks on all regions."""
        rows = self.corpus.held_out_rows
        if not len(rows):
            return {}
        self.encoder.eval()
        self.decoder.eval()
        rng = np.random.default_rng([self.config.seed, 99])
        error = weight = 0.0
        for start in range(0, len(rows), self.config.batch_size):
            part = rows[start : start + self.config.batch_size]
            whole = to_device(self.corpus.batch(part), self.device)
            view = self._view(part, self.config.token_share, rng)
            cell, tokens = self.encoder(view.tokens, view.kept)
            values = self.decoder(cell, tokens, view.kept)
            mask = self._left_out(view.kept) & whole.measured
            count = float(mask.sum())
            error += float(masked_error(values, whole.dense(self.corpus.num_genes), mask)) * count
            weight += count
        return {
            "held_out_mse": error / weight,
            "gene_mean_mse": self.yardsticks.gene_mean,
            "pca_mse": self.yardsticks.pca,
        }

    def state(self) -> dict[str, object]:
        return {
            "step": self.step,
            "encoder": self.encoder.state_dict(),
            "decoder": self.decoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "queue": self.queue.state(),
        }

    def restore(self, state: dict[str, object]) -> None:
        self.step = int(state["step"])  # type: ignore[call-overload]
        self.encoder.load_state_dict(state["encoder"])  # type: ignore[arg-type]
        self.decoder.load_state_dict(state["decoder"])  # type: ignore[arg-type]
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]
        self.queue.restore(state["queue"])  # type: ignore[arg-type]


def prepare_stage2(
    corpus: Corpus,
    stage1: PathwayAutoencoder,
    config: Stage2Config,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
    kept: Path | None = None,
) -> Stage2Trainer:
    """Encode the corpus with the frozen stage 1 and make a trainer at step 0.

    ``kept`` is a file that holds the encoded cells for the next time (``--resume``, or stage 2 anew with other
    options); it is used only when it was made from the same weights, cells and options.
    """
    sampler = Sampler(corpus, power=config.tissue_power, seed=config.seed)
    vectors = singular_vectors(corpus, sampler, min(stage1.config.num_tokens, corpus.num_genes - 1))
    scores = SpectralScores(corpus, sampler, vectors)
    yardsticks = Yardsticks(corpus, gene_means(corpus, corpus.train_rows), vectors)
    mark = mark_of(corpus, stage1, config)
    cache = read_cache(kept, mark)
    if cache is None:
        cache = cache_cells(corpus, stage1, scores, config, device, progress)
        if kept is not None:
            write_cache(kept, mark, cache)
    return Stage2Trainer(corpus, stage1, config, device, cache, yardsticks)


def load_stage1(run: Run, network: NetworkConfig) -> PathwayAutoencoder:
    """The trained stage 1 of a run. Raises RunError when it is missing, damaged or without codes."""
    if not run.section("stage1", Stage1Config).quantizer:
        raise RunError(
            f"{run.path}: stage 1 was trained with quantizer=false, so its cells have no codes, which stage 2 and a "
            "bundle are made of. Train it with quantizer=true."
        )
    model = PathwayAutoencoder(network)
    run.fill(model, "stage1", "model")
    return model.eval()


def train_cells(trainer: Stage2Trainer, run: Run, progress: Progress = lambda step, scalars: None) -> None:
    """Train to the end, with a checkpoint every ``checkpoint_every`` steps."""
    run_loop(trainer, run, STAGE, progress)
