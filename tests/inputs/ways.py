"""Ways in which people write the same cells: each must give the same embedding, or be refused.

This file has ways to write values and matrices. The modules that it imports add ways to write columns, names and files.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from tests.inputs import column_ways, name_ways
from tests.inputs.clean import WAYS, Clean, cp10k, way
from tests.inputs.file_ways import FILES

__all__ = ["FILES", "WAYS", "Clean", "column_ways", "name_ways"]

# --- values


@way()
def log1p_cp10k(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log1p(cp10k(cells)))


@way()
def log2_cp10k(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log2(cp10k(cells) + 1))


@way()
def log10_cpm(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log10(cp10k(cells) * 100 + 1))


@way()
def log1p_of_median_total(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log1p(cells.counts / cells.sums * np.median(cells.sums)))


@way()
def log1p_without_normalisation(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log1p(cells.counts))


@way()
def log2_by_size_factors(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    factors = cells.sums / cells.sums.mean() * np.exp(rng.normal(0, 0.15, cells.sums.shape))
    return cells.adata(np.log2(cells.counts / factors + 1))


@way()
def cpm(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(cp10k(cells) * 100)


@way()
def shares(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(cells.counts / cells.sums)


@way("either")
def log1p_with_three_decimals(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.round(np.log1p(cp10k(cells)), 3))


@way("either")
def log1p_in_half_precision(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log1p(cp10k(cells)).astype(np.float16).astype(np.float64))


@way()
def counts_with_a_common_factor(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(cells.counts * 0.97)


@way()
def doubles(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = cells.adata()
    made.X = made.X.astype(np.float64)
    return made


@way("refused")
def truth_values(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = cells.adata()
    made.X = made.X > 0
    return made


@way("refused")
def binarised(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata((cells.counts > 0).astype(np.float64))


@way("either")
def square_roots(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.sqrt(cp10k(cells)))


@way("either")
def log_of_log(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log1p(np.log1p(cp10k(cells))))


@way("refused")
def scaled(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    logs = np.log1p(cp10k(cells))
    return cells.adata((logs - logs.mean(0)) / (logs.std(0) + 1e-9), dense=True)


@way("refused")
def of_unit_variance(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    logs = np.log1p(cp10k(cells))
    return cells.adata(logs / np.where(logs.std(0) > 0, logs.std(0), 1))


@way("refused")
def ranks(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    order = (cells.counts + rng.random(cells.counts.shape) * 1e-3).argsort(axis=1).argsort(axis=1) + 1.0
    return cells.adata(np.where(cells.counts > 0, order - (cells.counts == 0).sum(1, keepdims=True), 0))


@way("refused")
def bins(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = np.zeros_like(cells.counts)
    for row, counts in enumerate(cells.counts):
        some = np.flatnonzero(counts)
        order = (counts[some] + rng.random(len(some)) * 1e-3).argsort().argsort()
        made[row, some] = np.floor(order * 50 / max(1, len(some))) + 1
    return cells.adata(made)


@way("refused")
def ranks_with_ties(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = np.array([np.searchsorted(np.sort(counts), counts) for counts in cells.counts], np.float64)
    return cells.adata(np.where(cells.counts > 0, made - (cells.counts == 0).sum(1, keepdims=True) + 1, 0))


@way("refused")
def ranks_of_all_genes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.array([np.searchsorted(np.sort(counts), counts) for counts in cells.counts], np.float64))


@way("refused")
def quantile_normalised(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    logs = np.log1p(cp10k(cells))
    order = (logs + rng.random(logs.shape) * 1e-6).argsort(axis=1).argsort(axis=1)
    return cells.adata(np.sort(logs, axis=1).mean(axis=0)[order])


@way("refused")
def smoothed(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    weights = rng.dirichlet(np.full(len(cells.counts), 0.3), len(cells.counts)) + 0.01
    return cells.adata(np.log1p(weights / weights.sum(1, keepdims=True) @ cp10k(cells)), dense=True)


# --- where they are


@way()
def counts_in_a_layer(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = scaled(cells, rng)
    made.layers["counts"] = sparse.csr_matrix(cells.counts.astype(np.float32))
    return made


@way()
def counts_in_raw(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = scaled(cells, rng)
    made.raw = cells.adata()
    return made


@way()
def logs_in_raw(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = scaled(cells, rng)
    made.raw = log1p_cp10k(cells, rng)
    return made


@way()
def by_columns(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = cells.adata()
    made.X = sparse.csc_matrix(made.X)
    return made


@way()
def dense(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(dense=True)


@way()
def shuffled(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    order = rng.permutation(len(cells.symbols))
    return cells.adata()[:, order].copy()


@way("refused")
def transposed(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = cells.adata()
    return ad.AnnData(
        sparse.csr_matrix(made.X.T),
        obs=pd.DataFrame(index=made.var_names),
        var=pd.DataFrame(index=[f"AACC{i}-1" for i in range(made.n_obs)]),
    )
