"""scVI fitted to the cells it embeds: what a user would run instead of a pre-trained model (extra ``[compare]``)."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.genes.matrix import CellMatrix
from scpalm.training.evaluation.common.baselines import NUM_VARIABLE_GENES, log_normalized, variable_genes
from scpalm.training.evaluation.common.count_table import count_table
from scpalm.training.evaluation.common.source import NotApplicable
from scpalm.training.evaluation.common.thinning import has_counts

NUM_LATENT = 10
# Cells per step; the default of scvi-tools.
_BATCH = 128
_TRAIN_SHARE = 0.9


class Scvi:
    """An ``EmbeddingSource`` of ``scvi``: 10 latent dimensions, 2,000 variable genes, other options by default.

    The number of epochs is scvi-tools' heuristic: 400 up to 20,000 cells, fewer above. One CPU thread. Source: Lopez et
    al. 2018.
    """

    methods = ("scvi",)

    def __init__(self, *, batches: Sequence[str] | None = None, seed: int = 0, max_epochs: int | None = None) -> None:
        """Options of the fit.

        Args:
            batches: ``[cells]`` batch of each cell, which the model corrects for.
            seed: of the weights and the order of cells.
            max_epochs: None for the heuristic.
        """
        self._batches, self._seed, self._max_epochs = batches, seed, max_epochs

    def zero_shot(self, method: str, dataset: str) -> bool:
        return False

    def embed(self, method: str, matrix: CellMatrix) -> NDArray[np.float64]:
        """``[cells, 10]`` posterior means. Raises NotApplicable without scvi-tools, or if the values are not counts."""
        if method not in self.methods:
            raise ValueError(f"Unknown method '{method}': choose scvi.")
        try:
            import scvi
        except ImportError as error:
            raise NotApplicable(
                "no-scvi-tools",
                "scVI needs scvi-tools, which is not installed.",
                hint="Install it with pip install 'scpalm[compare]'.",
            ) from error
        if not has_counts(matrix):
            raise NotApplicable("not-counts", "scVI needs raw counts.", hint="Put raw counts in X.")
        from anndata import AnnData

        cells = AnnData(_variable_counts(matrix))
        with _quiet(), _one_thread():
            scvi.settings.verbosity = logging.ERROR
            scvi.settings.seed = self._seed
            if self._batches is not None:
                cells.obs["batch"] = list(self._batches)
            scvi.model.SCVI.setup_anndata(cells, batch_key=None if self._batches is None else "batch")
            model = scvi.model.SCVI(cells, n_latent=NUM_LATENT)
            model.train(
                max_epochs=self._max_epochs,
                accelerator="cpu",
                train_size=_TRAIN_SHARE,
                enable_progress_bar=False,
                enable_checkpointing=False,
                enable_model_summary=False,
                logger=False,
                datasplitter_kwargs={"drop_last": _single_left(matrix.num_cells)},
            )
            return np.asarray(model.get_latent_representation(), dtype=np.float64)


def _variable_counts(matrix: CellMatrix) -> sparse.csr_matrix:
    """``[cells, genes]`` float32 counts of the 2,000 most variable genes; of all genes if a cell would be empty."""
    counts = count_table(matrix).astype(np.float32)
    part = counts[:, variable_genes(log_normalized(matrix), NUM_VARIABLE_GENES)]
    return part if np.diff(part.indptr).all() else counts


def _single_left(cells: int) -> bool:
    """Whether the last batch of an epoch would be a single cell, which batch norm rejects."""
    training = int(np.ceil(_TRAIN_SHARE * cells))
    return training > _BATCH and training % _BATCH == 1


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread, so that sums do not depend on the number of cores; the layers are too small to gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the notes of the trainer about devices, loggers and data loaders."""
    logs = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
