"""Features of a cell for the drug response head: h_C and the values of a panel of genes, standardised.

Bulk profiles and single cells have the same features. A bulk profile is log2(TPM + 1) of the panel's genes. TPM sums to
a million over all genes, so ``log1p(TPM / 100)`` is log1p CP10K, the scale of a single cell, even if the other genes
are unknown. In training and in serving, h_C is computed from the panel only: the other genes are missing, not zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.align import align
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.genes.vocabulary import Vocabulary

Part = Literal["h_C", "genes"]
# With a smaller share of the panel, the prediction would be that of the average cell.
MIN_PANEL_SHARE = 0.1


def log1p_cp10k(log2_tpm: NDArray[np.floating]) -> NDArray[np.float32]:
    """``log2(TPM + 1)`` -> ``log1p(TPM / 100)``, any shape."""
    tpm = np.maximum(np.exp2(log2_tpm.astype(np.float64)) - 1, 0)
    return np.log1p(tpm / 100).astype(np.float32)


def bulk_matrix(log2_tpm: NDArray[np.floating], genes: Sequence[str], names: Sequence[str]) -> CellMatrix:
    """Bulk profiles ``[lines, genes]`` as cells in log1p CP10K. Prepare them with ``declared="log"``."""
    values = log1p_cp10k(log2_tpm)
    rows, columns = np.nonzero(values)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))]).astype(np.int64)
    return CellMatrix(indptr, columns.astype(np.int32), values[rows, columns], list(genes), list(names))


class Panel:
    """The P genes that the head reads.

    Attributes:
        genes: names of the genes.
        position: ``[P]`` vocabulary position of each gene, -1 where unknown.
    """

    def __init__(self, genes: Sequence[str], vocabulary: Vocabulary) -> None:
        self.genes = list(genes)
        self.position = align(vocabulary, GeneColumns(self.genes)).target.astype(np.int64)
        self._panel_column = np.full(len(vocabulary), -1, dtype=np.int64)  # [G]: column in the panel, or -1
        known = self.position >= 0
        self._panel_column[self.position[known]] = np.flatnonzero(known)

    def __len__(self) -> int:
        return len(self.genes)

    def only(self, rows: Rows) -> Rows:
        """The cells restricted to the panel's genes, with values still normalised by the totals over all genes.

        A cell that expresses none of the genes becomes an empty row. Raises InputError if a file measured less than a
        tenth of the panel.
        """
        inside = self._panel_column >= 0
        sets = tuple(GeneSet(gene_set.measured & inside) for gene_set in rows.gene_sets)
        for gene_set in sets:
            if gene_set.num_measured < MIN_PANEL_SHARE * len(self):
                raise InputError(
                    "few-panel-genes",
                    f"The file has {gene_set.num_measured} of the {len(self)} genes that predict drug response.",
                    hint=f"Send at least {int(np.ceil(MIN_PANEL_SHARE * len(self)))} of them, preferably all genes.",
                    field="genes",
                )
        kept = inside[rows.gene_index]
        owner = np.repeat(np.arange(len(rows)), rows.lengths())[kept]
        lengths = np.bincount(owner, minlength=len(rows))
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Rows(indptr, rows.gene_index[kept], rows.value[kept], sets, rows.gene_set_of_row)

    def values(self, rows: Rows) -> NDArray[np.float32]:
        """``[B, P]`` log1p CP10K: 0 where a gene was measured but not expressed, NaN where it was not measured."""
        measured = np.zeros((len(rows.gene_sets), len(self)), dtype=bool)
        known = self.position >= 0
        for number, gene_set in enumerate(rows.gene_sets):
            measured[number, known] = gene_set.measured[self.position[known]]
        out = np.where(measured, 0.0, np.nan).astype(np.float32)[rows.gene_set_of_row]
        column = self._panel_column[rows.gene_index]
        row = np.repeat(np.arange(len(rows)), rows.lengths())
        out[row[column >= 0], column[column >= 0]] = rows.value[column >= 0]
        return out


@dataclass(frozen=True, eq=False)
class Standardizer:
    """Computes z-scores of features with the mean and sd ``[width]`` over the training lines; an sd of 0 becomes 1."""

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    @classmethod
    def fit(cls, features: NDArray[np.floating]) -> Standardizer:
        """Compute mean and sd of ``features [lines, width]``, ignoring NaN."""
        sd = np.nanstd(features.astype(np.float64), axis=0)
        mean = np.nanmean(features.astype(np.float64), axis=0)
        return cls(mean.astype(np.float32), np.where(sd > 1e-6, sd, 1.0).astype(np.float32))

    def apply(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """``[B, width]`` z-scores. Missing features (NaN) get the mean, a z-score of 0."""
        scored = (features - self.mean) / self.sd
        return np.nan_to_num(scored, nan=0.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class CellInputs:
    """Computes the standardised features of the cell branch from rows and h_C.

    Attributes:
        parts: ``h_C``, ``genes`` or both, in order.
        panel: the genes.
        standard: standardises all features, in the order of ``parts``.
    """

    parts: tuple[Part, ...]
    panel: Panel
    standard: Standardizer

    def __post_init__(self) -> None:
        if not self.parts or any(part not in get_args(Part) for part in self.parts):
            raise ValueError(f"parts must be taken from {get_args(Part)}, but are {self.parts}")

    def features(self, embedding: NDArray[np.float32], panel_rows: Rows) -> NDArray[np.float32]:
        """``[B, width]`` z-scores.

        Args:
            embedding: ``[B, D]`` h_C, computed from ``panel_rows``.
            panel_rows: the cells, from ``panel.only``.
        """
        made: Mapping[Part, NDArray[np.float32]] = {"h_C": embedding, "genes": self.panel.values(panel_rows)}
        return self.standard.apply(np.concatenate([made[part] for part in self.parts], axis=1))

    def num_known(self, panel_rows: Rows, embedding_width: int) -> NDArray[np.int64]:
        """``[B]`` number of features that are not missing."""
        genes = np.isfinite(self.panel.values(panel_rows)).sum(axis=1)
        return sum(genes if part == "genes" else embedding_width for part in self.parts) + np.zeros_like(genes)


def mutation_features(calls: NDArray[np.integer]) -> NDArray[np.float32]:
    """Calls ``[B, genes]``: 0, 1 or -1 (unknown) -> ``[B, 2 genes]``: calls with NaN for unknown, then a known mask."""
    known = calls >= 0
    return np.concatenate([np.where(known, calls, np.nan), known], axis=1).astype(np.float32)
