"""Cells of a corpus as a sparse matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.training.corpus.reader import Corpus


def corpus_matrix(corpus: Corpus, rows: NDArray[np.int64]) -> sparse.csr_matrix:
    """``[rows, G]`` log1p CP10K."""
    # Rows may repeat; each cell is read once.
    different, place = np.unique(rows, return_inverse=True)
    cells = [corpus.cell(int(row)) for row in different]
    indptr = np.concatenate([[0], np.cumsum([len(genes) for genes, _ in cells])])
    table = sparse.csr_matrix(
        (np.concatenate([v for _, v in cells]), np.concatenate([g for g, _ in cells]), indptr),
        shape=(len(different), corpus.num_genes),
    )
    return table[place]
