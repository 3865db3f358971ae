"""A count autoencoder with a zero-inflated negative binomial likelihood, after DCA (Eraslan et al. 2019).

Written from the paper's description, and fitted to the file it imputes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional as F

from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.linear import SCALE
from scpalm.training.evaluation.imputation.imputers import Values


class ZinbNetwork(nn.Module):
    """Genes -> 64 -> 32 -> 64 -> mean, dispersion and dropout of every gene."""

    def __init__(self, genes: int, hidden: tuple[int, int, int] = (64, 32, 64)) -> None:
        super().__init__()
        sizes = (genes, *hidden)
        layers: list[nn.Module] = []
        for before, after in zip(sizes, hidden, strict=False):
            # The next layer sets the scale, as in the paper's program.
            norm = nn.BatchNorm1d(after, momentum=0.01, eps=1e-3)
            layers += [nn.Linear(before, after), norm, nn.ReLU()]
        self.trunk = nn.Sequential(*layers)
        self.mean, self.dispersion, self.dropout = (nn.Linear(hidden[-1], genes) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, genes]`` standardised log values -> mean at the median total, dispersion, dropout logit."""
        h = self.trunk(x)
        mean = torch.exp(self.mean(h)).clamp(1e-5, 1e6)
        return mean, F.softplus(self.dispersion(h)).clamp(1e-4, 1e4), self.dropout(h)


def zinb_loss(counts: Tensor, mean: Tensor, dispersion: Tensor, dropout: Tensor) -> Tensor:
    """Mean negative log-likelihood of ``counts [B, genes]``; ``dropout`` is a logit.

    Terms that zero and positive counts share are computed for all, gamma functions for the few positive ones only.
    """
    log_share = torch.log(dispersion + mean)
    log_zero = dispersion * (torch.log(dispersion) - log_share)
    # log(pi + (1 - pi) p0) = log(1 - pi) + log(p0 + pi / (1 - pi)), and a logit is log(pi / (1 - pi)).
    log_not = F.logsigmoid(-dropout)
    if_zero = log_not + torch.logaddexp(dropout, log_zero)
    at = counts.nonzero(as_tuple=True)
    y, d = counts[at], dispersion[at]
    if_positive = (
        log_not[at]
        + torch.lgamma(y + d)
        - torch.lgamma(d)
        - torch.lgamma(y + 1)
        + log_zero[at]
        + y * (torch.log(mean[at]) - log_share[at])
    )
    return (if_zero[at].sum() - if_zero.sum() - if_positive.sum()) / counts.numel()


@dataclass(frozen=True)
class ZinbAutoencoder:
    """``zinb_autoencoder``, an ``Imputer``.

    RMSprop at 1e-3, gradients clipped at 5, one tenth of the cells held out. The rate falls tenfold after 10 epochs
    without a better held-out loss. Training stops after 15 such epochs, after ``epochs`` (300 in the paper's program)
    or after ``max_steps``.
    """

    epochs: int = 40
    max_steps: int = 1000
    batch_size: int = 32
    patience: int = 15

    methods = ("zinb_autoencoder",)

    def zero_shot(self, method: str, dataset: str) -> bool:
        return False

    def impute(self, method: str, matrix: CellMatrix, seed: int) -> Values:
        """``[cells, genes]`` log1p CP10K of the negative binomial's mean, without dropout and depth."""
        shape = (matrix.num_cells, matrix.num_genes)
        table = sparse.csr_matrix((matrix.data, matrix.indices, matrix.indptr), shape=shape)
        totals = matrix.row_totals()
        median = float(np.median(totals))
        size = torch.from_numpy((totals / median).astype(np.float32))[:, None]
        log = table.astype(np.float64).multiply((median / totals)[:, None]).tocsr()
        log.data = np.log1p(log.data)
        mean = np.asarray(log.mean(axis=0)).ravel()
        spread = np.sqrt(np.maximum(np.asarray(log.multiply(log).mean(axis=0)).ravel() - mean**2, 0.0))
        x = torch.from_numpy(((log.toarray() - mean) / np.where(spread > 0, spread, 1.0)).astype(np.float32))
        network = self._fit(x, table, size, seed)
        out = np.empty(shape, dtype=np.float32)
        with torch.no_grad():
            for start in range(0, len(x), 512):
                rate = network(x[start : start + 512])[0].numpy()
                out[start : start + 512] = np.log1p(rate * np.float32(SCALE / median))
        return out

    def _fit(self, x: Tensor, table: sparse.csr_matrix, size: Tensor, seed: int) -> ZinbNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ZinbNetwork(x.shape[1])
        rng = np.random.default_rng([seed, 0x7A696E62])
        order = rng.permutation(len(x))
        held_out, train = np.split(order, [max(len(x) // 10, 1)])
        optimiser = torch.optim.RMSprop(network.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, factor=0.1, patience=10)
        best, since = float("inf"), 0
        saved = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        batches = -(-len(train) // self.batch_size)
        for _ in range(min(self.epochs, -(-self.max_steps // batches))):
            network.train()
            shuffled = rng.permutation(train)
            for start in range(0, len(shuffled), self.batch_size):
                rows = shuffled[start : start + self.batch_size]
                if len(rows) < 2:
                    continue  # batch norm needs two
                optimiser.zero_grad(set_to_none=True)
                _loss(network, x, table, size, rows).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 5.0)
                optimiser.step()
            network.eval()
            with torch.no_grad():
                loss = float(_loss(network, x, table, size, held_out))
            schedule.step(loss)
            since = 0 if loss < best else since + 1
            if loss < best:
                best = loss
                saved = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            if since >= self.patience:
                break
        network.load_state_dict(saved)
        return network.eval()


def _loss(network: ZinbNetwork, x: Tensor, table: sparse.csr_matrix, size: Tensor, rows: np.ndarray) -> Tensor:
    counts = torch.from_numpy(table[rows].toarray().astype(np.float32))
    mean, dispersion, dropout = network(x[rows])
    return zinb_loss(counts, mean * size[rows], dispersion, dropout)
