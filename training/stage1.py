"""Stage 1: train the pathway autoencoder (paper 3.2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from model.config import NetworkConfig
from model.embedding import SparseCells
from model.pathways import PathwayAutoencoder
from training.baselines import SpectralScores, Yardsticks, as_tensor, gene_means, masked_error, singular_vectors
from training.config import OptimizerConfig, Stage1Config
from training.corpus import Corpus, Sampler
from training.run import Run, RunError, check_finite, interrupt_between_steps, make_optimizer, set_lr

STAGE = "stage1"
Progress = Callable[[int, dict[str, float]], None]


def to_device(cells: SparseCells, device: torch.device) -> SparseCells:
    return SparseCells(*(t.to(device) for t in (cells.gene_index, cells.value, cells.offsets, cells.measured)))


def thinned_shares(config: Stage1Config, size: int, rng: np.random.Generator) -> np.ndarray:
    """``[size]`` share of counts to keep: 1 for the cells left whole."""
    share = rng.uniform(config.thin_low, 1.0, size)
    return np.where(rng.random(size) < config.thin_share, share, 1.0)


class Stage1Trainer:
    """Trains step by step; ``state`` and ``restore`` make a resumed run the same run, bit for bit."""

    def __init__(self, corpus: Corpus, network: NetworkConfig, config: Stage1Config, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.corpus, self.config, self.device = corpus, config, device
        self.sampler = Sampler(corpus, power=config.tissue_power, seed=config.seed)
        self.model = PathwayAutoencoder(network)
        self.model.quantizer.sync = config.sync_update
        self.model.quantizer.patience = config.patience
        means = gene_means(corpus, corpus.train_rows)
        vectors = singular_vectors(corpus, self.sampler, min(network.num_tokens, network.num_genes - 1))
        self.yardsticks = Yardsticks(corpus, means, vectors)
        with torch.no_grad():
            self.model.head.bias.copy_(as_tensor(means))
        if config.spectral_start:
            # Unit columns are tiny in each gene; scaled so that f has the spread of the paper's start.
            self.model.embedding.spectral_start(as_tensor(vectors) * math.sqrt(network.num_genes))
        self.scores = SpectralScores(corpus, self.sampler, vectors).to(device)
        self.model.to(device)
        if not config.train_embedding:
            self.model.embedding.freeze()
        self.optimizer = make_optimizer([self.model], config)
        self.step = 0
        self.revived = 0
        self.codes_started = False
        if config.spectral_start:
            self._start_statistics()

    @torch.no_grad()
    def _start_statistics(self, batches: int = 32) -> None:
        f = torch.cat([self.model.embedding(self._batch(-1 - i)[0]) for i in range(batches)])
        self.model.standardise.running_mean.copy_(f.mean(0))  # type: ignore[union-attr]
        self.model.standardise.running_var.copy_(f.var(0))  # type: ignore[union-attr]

    def _batch(self, step: int) -> tuple[SparseCells, SparseCells]:
        """The (partly thinned) cells to embed, and the whole cells to reconstruct."""
        key = step % 2**31
        rows = self.sampler.draw(key, self.config.batch_size)
        rng = self.sampler.generator(key, purpose=1)
        keep = thinned_shares(self.config, len(rows), rng)
        whole = to_device(self.corpus.batch(rows), self.device)
        if not (keep < 1).any():
            return whole, whole
        return to_device(self.corpus.batch(rows, keep=keep, rng=rng), self.device), whole

    @property
    def quantizing(self) -> bool:
        return self.config.quantizer and (self.codes_started or self.step >= self.quantizer_step)

    @property
    def quantizer_step(self) -> int:
        return int(self.config.quantizer_start * self.config.steps)

    def _autocast(self) -> torch.autocast | nullcontext[None]:
        return (
            torch.autocast("cuda", torch.bfloat16) if self.config.bf16 and self.device.type == "cuda" else nullcontext()
        )

    def train_step(self) -> dict[str, float]:
        """One batch; the scalars of the step."""
        config = self.config
        self.model.train()
        cells, whole = self._batch(self.step)
        if self.quantizing and not self.codes_started:
            self._start_codes()
        target = whole.dense(self.corpus.num_genes)
        with self._autocast():
            out = self.model(cells, quantize=self.quantizing)
            error = masked_error(out.values.float(), target, whole.measured)
        loss = error / (self.yardsticks.gene_mean if math.isfinite(self.yardsticks.gene_mean) else 1.0)
        scalars = {"mse": float(error.detach())}
        if config.score_weight > 0:
            score_error = F.mse_loss(out.scores.float()[:, : self.scores.vectors.shape[1]], self.scores.of(whole))
            loss = loss + config.score_weight * score_error
            scalars["score_mse"] = float(score_error.detach())
        if out.quantized is not None:
            loss = loss + config.commitment * out.quantized.loss
            scalars |= {"commitment": float(out.quantized.loss.detach()), "distance": float(out.quantized.distance)}
        check_finite(loss, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        check_finite(torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip), self.step)
        scalars["lr"] = set_lr(self.optimizer, config, self.step)
        self.optimizer.step()
        if out.quantized is not None and config.revive:
            self._revive(out.encoded, out.quantized.indices)
        self.step += 1
        return scalars

    @torch.no_grad()
    def _start_codes(self, batches: int = 8) -> None:
        self.model.eval()
        encoded = [self.model.encode_read_out(self.model.read_out(self._batch(-1001 - i)[0])) for i in range(batches)]
        generator = torch.Generator().manual_seed(self.config.seed)
        self.codes_started = True
        self.model.quantizer.start(torch.cat(encoded).cpu().to(self.model.quantizer.codes.device), generator)
        self.model.train()

    def _revive(self, encoded: Tensor, indices: Tensor) -> None:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.step)
        self.revived += self.model.quantizer.revive(encoded.detach(), indices, generator)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Held-out error beside its yardsticks; used codes and perplexity. Raises RunError when the codes collapsed."""
        rows = self.corpus.held_out_rows
        if not len(rows):
            return {}
        self.model.eval()
        error = score_error = cells = 0.0
        usage = torch.zeros(len(self.model.quantizer.codes))
        for start in range(0, len(rows), self.config.batch_size):
            batch = to_device(self.corpus.batch(rows[start : start + self.config.batch_size]), self.device)
            out = self.model(batch, quantize=self.quantizing)
            weight = float(batch.measured.sum())
            error += float(masked_error(out.values, batch.dense(self.corpus.num_genes), batch.measured)) * weight
            score_error += (
                float(F.mse_loss(out.scores[:, : self.scores.vectors.shape[1]], self.scores.of(batch))) * weight
            )
            cells += weight
            if out.quantized is not None:
                usage += torch.bincount(out.quantized.indices.reshape(-1).cpu(), minlength=len(usage))
        scalars = {
            "held_out_mse": error / cells,
            "held_out_score_mse": score_error / cells,
            "gene_mean_mse": self.yardsticks.gene_mean,
            "pca_mse": self.yardsticks.pca,
        }
        if self.quantizing:
            share = usage / usage.sum()
            used = int((usage > 0).sum())
            perplexity = float(torch.exp(-(share * torch.log(share.clamp(min=1e-12))).sum()))
            scalars |= {"used_codes": used, "perplexity": perplexity, "revived": self.revived}
            if used < 2 and self.step > self.quantizer_step + 10 * self.config.patience:
                raise RunError(
                    f"The codes collapsed: {used} in use at step {self.step}. Try a longer quantizer_start, "
                    "a smaller code_width (4-16) or a lower lr."
                )
        return scalars

    def state(self) -> dict[str, object]:
        return {
            "step": self.step,
            "revived": self.revived,
            "codes_started": self.codes_started,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, object]) -> None:
        self.step, self.revived = int(state["step"]), int(state["revived"])  # type: ignore[call-overload]
        self.codes_started = bool(state["codes_started"])
        self.model.load_state_dict(state["model"])  # type: ignore[arg-type]
        if not self.config.train_embedding:
            self.model.embedding.freeze()
        self.optimizer.load_state_dict(state["optimizer"])  # type: ignore[arg-type]


def train_pathways(trainer: Stage1Trainer, run: Run, progress: Progress = lambda step, scalars: None) -> None:
    """Train to the end, with a checkpoint every ``checkpoint_every`` steps (a Ctrl-C writes one more)."""
    run_loop(trainer, run, STAGE, progress)


class Trainer(Protocol):
    """What the loop needs of a stage."""

    step: int

    @property
    def config(self) -> OptimizerConfig: ...

    def train_step(self) -> dict[str, float]: ...

    def evaluate(self) -> dict[str, float]: ...

    def state(self) -> dict[str, object]: ...


def run_loop(trainer: Trainer, run: Run, stage: str, progress: Progress) -> None:
    """Shared by both stages: step, evaluate, checkpoint."""
    config = trainer.config
    curves = run.curves(stage)
    try:
        with interrupt_between_steps() as interrupted:
            while trainer.step < config.steps:
                scalars = trainer.train_step()
                last = trainer.step == config.steps
                if trainer.step % config.evaluate_every == 0 or last:
                    scalars |= trainer.evaluate()
                    curves.add(trainer.step, scalars)
                progress(trainer.step, scalars)
                stop = interrupted()
                if trainer.step % config.checkpoint_every == 0 or last or stop:
                    run.save_checkpoint(stage, trainer.state())
                if stop and not last:
                    raise KeyboardInterrupt
    finally:
        curves.close()
