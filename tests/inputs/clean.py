"""Clean cells, and the table of ways to write them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import anndata as ad
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[Any]
Expected = Literal["same", "refused", "either"]


@dataclass(frozen=True)
class Clean:
    """Cells as they should be sent: raw counts, symbols.

    Attributes:
        counts: ``[B, genes]`` whole numbers.
        symbols: names of the columns.
        ids: Ensembl id of each column, "" where unknown.
        totals: ``[B]`` counts of whole cells, if the columns are a selection; else their sums.
    """

    counts: Floats
    symbols: list[str]
    ids: list[str]
    totals: Floats

    @property
    def sums(self) -> Floats:
        return self.counts.sum(axis=1, keepdims=True)

    def adata(self, values: Floats | None = None, names: list[str] | None = None, *, dense: bool = False) -> ad.AnnData:
        """Values and names that replace the clean ones, as an AnnData."""
        matrix = np.asarray(self.counts if values is None else values, np.float32)
        obs = pd.DataFrame(index=[f"cell{i}" for i in range(len(matrix))])
        if not np.array_equal(self.totals, self.sums.ravel()):
            obs["total_UMIs"] = self.totals
        var = pd.DataFrame(index=pd.Index(self.symbols if names is None else names, dtype=object))
        return ad.AnnData(matrix if dense else sparse.csr_matrix(matrix), obs=obs, var=var)


Way = Callable[[Clean, np.random.Generator], ad.AnnData]
WAYS: dict[str, tuple[Way, Expected]] = {}


def way(expected: Expected = "same") -> Callable[[Way], Way]:
    """Register a way under the name of its function."""

    def add(function: Way) -> Way:
        WAYS[function.__name__] = function, expected
        return function

    return add


def cp10k(cells: Clean) -> Floats:
    """Counts per 10,000."""
    return cells.counts / cells.sums * 1e4
