"""Train the view head: a cell token that ignores technology, depth and measured genes (Algorithm 3 with views)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.read_out import ViewHead
from scpalm.model.read_out.basis import Basis
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.batches import Feed
from scpalm.training.data.transfer import DeviceFeed
from scpalm.training.data.views import ViewBatch, ViewSource
from scpalm.training.runs.run import Run
from scpalm.training.runs.trainer import Progress, StageTrainer, run_loop
from scpalm.training.runs.views_config import ViewsConfig

STAGE = "views"
_NEVER = -1e4


class _Views(nn.Module):
    """The head, and a decoder that keeps what f says in its output."""

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        self.head = ViewHead(network.components, network.view_width, network.view_hidden)
        self.decoder = nn.Linear(network.view_width, network.components)

    def forward(self, f: Tensor, log_measured: Tensor) -> tuple[Tensor, Tensor]:
        h = self.head(f, log_measured)
        return h, self.decoder(h)


class ViewTrainer(StageTrainer[ViewBatch]):
    """Supervised InfoNCE between two views of a cell, plus the error of the clean f decoded from the head's output."""

    stage = STAGE

    def __init__(
        self, corpus: Corpus, basis: Basis, network: NetworkConfig, config: ViewsConfig, device: torch.device
    ) -> None:
        torch.manual_seed(config.seed + 2)
        self.config = config
        self._corpus = corpus
        self._source = ViewSource(corpus, basis, config)
        self._feed = DeviceFeed(Feed(self._source, config.steps, config.workers), device)
        self._scale = network.components**0.5  # mean square 1 of the decoded f
        views = _Views(network).to(device)
        saved = {"head": views.head, "decoder": views.decoder}
        super().__init__(config, device, views, saved, [views.head], len(corpus.held_out_rows))

    def parts(self, step: int) -> list[ViewBatch]:
        """See ``StageTrainer``."""
        return [self._feed.at(step)]

    def loss(self, part: ViewBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """See ``StageTrainer``."""
        one, first = self.network(part.f[0], part.log_measured[0])
        two, second = self.network(part.f[1], part.log_measured[1])
        similarity = (one @ two.T / self.config.temperature).masked_fill(part.ignored, _NEVER)
        contrast = (info_nce(similarity, part.positive) + info_nce(similarity.T, part.positive.T)) / 2
        target = part.clean * self._scale
        error = F.mse_loss(first, target) + F.mse_loss(second, target)
        return contrast + self.config.reconstruction * error, {"contrastive": contrast, "mse": error / 2}

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Held-out error of the decoded f."""
        rows = self._corpus.held_out_rows
        if not len(rows):
            return {}
        f, log_measured = self._source.clean(np.asarray(rows))
        decoded = self.network(f.to(self.device), log_measured.to(self.device))[1]
        return {"held_out_mse": float(F.mse_loss(decoded, f.to(self.device) * self._scale))}

    def close(self) -> None:
        """See ``StageTrainer``."""
        self._feed.close()


def info_nce(similarity: Tensor, positive: Tensor) -> Tensor:
    """Mean over cells of the mean over their positives of ``-log softmax(similarity)`` (Khosla et al. 2020, L_out)."""
    log_share = F.log_softmax(similarity, dim=1)
    return -(log_share.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


def train_views(trainer: ViewTrainer, run: Run, progress: Progress = lambda step, scalars: None) -> None:
    """Train to the end, with a checkpoint every ``checkpoint_every`` steps."""
    run_loop(trainer, run, trainer.config, progress)
