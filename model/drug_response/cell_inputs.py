"""What the head reads of a cell: h_C and the values of a panel of genes, standardised; for bulk and single cells alike.

A bulk profile is log2(TPM + 1) of the panel's genes. TPM sums to a million over all genes, so ``log1p(TPM / 100)`` is
log1p CP10K, the scale of a cell in the service, although the other genes are not known. h_C is computed from the panel
alone, in training and in serving: the other genes are missing, not zero, and a cell and a bulk profile differ only in
what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.genes.vocabulary import Vocabulary

Part = Literal["h_C", "genes"]
# Less of the panel than this, and the answer would be the average cell's.
MIN_PANEL_SHARE = 0.1


def log1p_cp10k(log2_tpm: NDArray[np.floating]) -> NDArray[np.float32]:
    """``log2(TPM + 1)`` -> ``log1p(TPM / 100)``, any shape."""
    tpm = np.maximum(np.exp2(log2_tpm.astype(np.float64)) - 1, 0)
    return np.log1p(tpm / 100).astype(np.float32)


def bulk_matrix(log2_tpm: NDArray[np.floating], genes: Sequence[str], names: Sequence[str]) -> CellMatrix:
    """Bulk profiles ``[lines, genes]`` as cells in log1p CP10K, to be prepared with ``declared="log"``."""
    values = log1p_cp10k(log2_tpm)
    rows, columns = np.nonzero(values)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(values)))]).astype(np.int64)
    return CellMatrix(indptr, columns.astype(np.int32), values[rows, columns], list(genes), list(names))


class Panel:
    """P genes, at fixed places of the vocabulary."""

    def __init__(self, genes: Sequence[str], vocabulary: Vocabulary) -> None:
        self.genes = list(genes)
        self.position = vocabulary.align(self.genes).target.astype(np.int64)  # -1: not in the vocabulary
        self._place = np.full(len(vocabulary), -1, dtype=np.int64)
        known = self.position >= 0
        self._place[self.position[known]] = np.flatnonzero(known)

    def __len__(self) -> int:
        return len(self.genes)

    def only(self, rows: Rows) -> Rows:
        """The same cells, as if the file had held the panel's genes alone (their totals stay those of all genes).

        A cell that expresses none of them becomes an empty row. Raises InputError when a file measured less than a
        tenth of the panel.
        """
        inside = self._place >= 0
        sets = tuple(GeneSet(gene_set.measured & inside) for gene_set in rows.gene_sets)
        for gene_set in sets:
            if gene_set.num_measured < MIN_PANEL_SHARE * len(self):
                raise InputError(
                    "few-panel-genes",
                    f"The file holds {gene_set.num_measured} of the {len(self)} genes that drug response is read from.",
                    mend=f"Send at least {int(np.ceil(MIN_PANEL_SHARE * len(self)))} of them, better all genes.",
                    field="genes",
                )
        kept = inside[rows.gene_index]
        owner = np.repeat(np.arange(len(rows)), rows.lengths())[kept]
        lengths = np.bincount(owner, minlength=len(rows))
        indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Rows(indptr, rows.gene_index[kept], rows.value[kept], sets, rows.gene_set_of_row)

    def values(self, rows: Rows) -> NDArray[np.float32]:
        """``[B, P]`` log1p CP10K; 0 where measured and not expressed, NaN where missing."""
        measured = np.zeros((len(rows.gene_sets), len(self)), dtype=bool)
        known = self.position >= 0
        for number, gene_set in enumerate(rows.gene_sets):
            measured[number, known] = gene_set.measured[self.position[known]]
        out = np.where(measured, 0.0, np.nan).astype(np.float32)[rows.gene_set_of_row]
        place = self._place[rows.gene_index]
        row = np.repeat(np.arange(len(rows)), rows.lengths())
        out[row[place >= 0], place[place >= 0]] = rows.value[place >= 0]
        return out


@dataclass(frozen=True, eq=False)
class Standard:
    """Mean and sd ``[width]`` of each feature over the training lines; an sd of 0 counts as 1."""

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]

    @classmethod
    def of(cls, features: NDArray[np.floating]) -> Standard:
        """``features [lines, width]``; NaN is left out."""
        sd = np.nanstd(features.astype(np.float64), axis=0)
        mean = np.nanmean(features.astype(np.float64), axis=0)
        return cls(mean.astype(np.float32), np.where(sd > 1e-6, sd, 1.0).astype(np.float32))

    def apply(self, features: NDArray[np.floating]) -> NDArray[np.float32]:
        """``[B, width]`` z-scores; missing features (NaN) become the mean, 0."""
        scored = (features - self.mean) / self.sd
        return np.nan_to_num(scored, nan=0.0).astype(np.float32)


@dataclass(frozen=True, eq=False)
class CellInputs:
    """From rows and h_C to the standardised features of the cell branch.

    Attributes:
        parts: in order, ``h_C`` and/or ``genes``. panel: of the genes. standard: of all features, as parts has them.
    """

    parts: tuple[Part, ...]
    panel: Panel
    standard: Standard

    def __post_init__(self) -> None:
        if not self.parts or any(part not in get_args(Part) for part in self.parts):
            raise ValueError(f"parts must be of {get_args(Part)}, are {self.parts}")

    def features(self, embedding: NDArray[np.float32], panel_rows: Rows) -> NDArray[np.float32]:
        """``[B, width]`` z-scores of cells whose ``panel_rows`` came from ``panel.only``.

        ``embedding [B, D]`` is h_C of those very rows.
        """
        made: Mapping[Part, NDArray[np.float32]] = {"h_C": embedding, "genes": self.panel.values(panel_rows)}
        return self.standard.apply(np.concatenate([made[part] for part in self.parts], axis=1))

    def num_known(self, panel_rows: Rows, embedding_width: int) -> NDArray[np.int64]:
        """``[B]`` features that are not missing."""
        genes = np.isfinite(self.panel.values(panel_rows)).sum(axis=1)
        return sum(genes if part == "genes" else embedding_width for part in self.parts) + np.zeros_like(genes)


def mutation_features(calls: NDArray[np.integer]) -> NDArray[np.float32]:
    """``[B, genes]`` calls 0, 1 or -1 (unknown) -> ``[B, 2 genes]``: calls with unknown as NaN, then what is known."""
    known = calls >= 0
    return np.concatenate([np.where(known, calls, np.nan), known], axis=1).astype(np.float32)
