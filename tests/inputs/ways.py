"""Ways in which people write the same cells: each must give the same embedding, or be refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import anndata as ad
import h5py
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
    def add(function: Way) -> Way:
        WAYS[function.__name__] = function, expected
        return function

    return add


def _cp10k(cells: Clean) -> Floats:
    return cells.counts / cells.sums * 1e4


# --- values


@way()
def log1p_cp10k(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log1p(_cp10k(cells)))


@way()
def log2_cp10k(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log2(_cp10k(cells) + 1))


@way()
def log10_cpm(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log10(_cp10k(cells) * 100 + 1))


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
    return cells.adata(_cp10k(cells) * 100)


@way()
def shares(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(cells.counts / cells.sums)


@way("either")
def log1p_with_three_decimals(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.round(np.log1p(_cp10k(cells)), 3))


@way("either")
def log1p_in_half_precision(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log1p(_cp10k(cells)).astype(np.float16).astype(np.float64))


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
    return cells.adata(np.sqrt(_cp10k(cells)))


@way("either")
def log_of_log(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(np.log1p(np.log1p(_cp10k(cells))))


@way("refused")
def scaled(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    logs = np.log1p(_cp10k(cells))
    return cells.adata((logs - logs.mean(0)) / (logs.std(0) + 1e-9), dense=True)


@way("refused")
def of_unit_variance(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    logs = np.log1p(_cp10k(cells))
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
def smoothed(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    weights = rng.dirichlet(np.full(len(cells.counts), 0.3), len(cells.counts)) + 0.01
    return cells.adata(np.log1p(weights / weights.sum(1, keepdims=True) @ _cp10k(cells)), dense=True)


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


# --- columns that are no genes


def _with(cells: Clean, names: list[str], values: Floats, kinds: str | None = None) -> ad.AnnData:
    made = cells.adata(np.concatenate([cells.counts, values], axis=1), cells.symbols + names)
    if kinds is not None:
        made.var["feature_types"] = pd.Categorical(["Gene Expression"] * len(cells.symbols) + [kinds] * len(names))
    return made


@way()
def antibodies(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    names = ["CD3", "CD4", "CD19", "CD56", "IgG1_control", "CD45RA"]
    made = _with(cells, names, rng.poisson(150, (len(cells.counts), len(names))), "Antibody Capture")
    made.var_names_make_unique()
    return made


@way()
def spike_ins(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _with(cells, [f"ERCC-{i:05d}" for i in range(2, 94)], rng.poisson(9, (len(cells.counts), 92)))


@way()
def logs_with_spike_ins_in_the_total(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = spike_ins(cells, rng)
    counts = made.X.toarray().astype(np.float64)
    made.X = sparse.csr_matrix(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32))
    return made


@way()
def peaks(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    names = [f"chr{1 + i % 22}:{1000 * i}-{1000 * i + 500}" for i in range(300)]
    return _with(cells, names, rng.poisson(0.5, (len(cells.counts), 300)))


@way()
def read_statistics(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _with(cells, ["__no_feature", "__ambiguous", "N_unmapped"], np.rint(cells.sums * np.array([0.9, 0.1, 0.3])))


@way()
def mouse_genes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _with(cells, [f"ENSMUSG{i:011d}" for i in range(1, 201)], rng.poisson(2.0, (len(cells.counts), 200)))


@way()
def metadata_columns(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _with(
        cells, ["nCount_RNA", "percent.mt", "seurat_clusters"], np.rint(cells.sums * np.array([1, 0.001, 0.002]))
    )


@way()
def two_species(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = _with(
        cells, ["mm10_" + s.capitalize() for s in cells.symbols[:200]], rng.poisson(1.0, (len(cells.counts), 200))
    )
    made.var_names = [n if n.startswith("mm10_") else "GRCh38_" + n for n in made.var_names]
    return made


# --- names


def _renamed(cells: Clean, function: Callable[[str], str]) -> ad.AnnData:
    return cells.adata(names=[function(symbol) for symbol in cells.symbols])


@way()
def dots(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: symbol.replace("-", "."))


@way()
def underscores(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: symbol.replace("-", "_"))


@way()
def typeset_dashes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: symbol.replace("-", "\u2011") + "\u200b")


@way()
def capitals(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, str.upper)


@way("refused")
def small_letters(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, str.lower)


@way()
def prefix(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: "hg19_" + symbol)


@way()
def quotes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return _renamed(cells, lambda symbol: f'"{symbol}"')


@way()
def numbered_parts(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(names=[f"{symbol}|{number}" for number, symbol in enumerate(cells.symbols, 7)])


@way()
def made_unique(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    top = np.argsort(-cells.counts.sum(0))[:20]
    half = np.floor(cells.counts[:, top] / 2)
    counts = cells.counts.copy()
    counts[:, top] -= half
    names = cells.symbols + [
        f"{cells.symbols[i]}{mark}" for i, mark in zip(top, [".1", "-1", "--1", "_1"] * 5, strict=True)
    ]
    return cells.adata(np.concatenate([counts, half], axis=1), names)


@way()
def symbols_in_a_column(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = cells.adata(names=[f"gene{i}" for i in range(len(cells.symbols))])
    made.var["Gene Short.Name"] = cells.symbols
    return made


@way()
def symbol_and_id(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(names=[f"{s}_{i}" if i else s for s, i in zip(cells.symbols, cells.ids, strict=True)])


@way()
def ids_with_versions(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    return cells.adata(names=[f"{i}.7_2" if i else s for s, i in zip(cells.symbols, cells.ids, strict=True)])


@way("either")
def shifted_ids(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = cells.adata()
    made.var["gene_ids"] = cells.ids[1:] + cells.ids[:1]
    return made


@way()
def unspliced_columns(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    counts = cells.counts.astype(np.int64)
    unspliced = rng.binomial(counts, 0.25)
    ambiguous = rng.binomial(counts - unspliced, 0.35)
    names = [symbol + mark for mark in ("", "-U", "-A") for symbol in cells.symbols]
    values = np.concatenate([counts - unspliced - ambiguous, unspliced, ambiguous], axis=1)
    return cells.adata(values.astype(np.float64), names)


# --- kinds of files


def ten_x_file(cells: Clean, folder: Path) -> Path:
    """10x's filtered_feature_bc_matrix.h5, with two antibodies."""
    path = folder / "filtered_feature_bc_matrix.h5"
    counts = sparse.csr_matrix(np.concatenate([cells.counts, np.full((len(cells.counts), 2), 99)], axis=1))
    names = [*cells.symbols, "CD3", "CD19"]
    ids = [i or s for i, s in zip(cells.ids, cells.symbols, strict=True)] + ["CD3", "CD19"]
    kinds = ["Gene Expression"] * len(cells.symbols) + ["Antibody Capture"] * 2
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for part in ("data", "indices", "indptr"):
            group[part] = getattr(counts, part).astype("i8")
        group["shape"] = np.array(counts.shape[::-1])
        group["barcodes"] = np.array([f"cell{i}" for i in range(len(cells.counts))], dtype="S")
        for name, values in (("id", ids), ("name", names), ("feature_type", kinds)):
            group[f"features/{name}"] = np.array([value.encode() for value in values])
    return path


def h5ad_by_columns(cells: Clean, folder: Path) -> Path:
    """An h5ad file whose matrix is stored by columns, without encoding, and its shape as doubles."""
    path = folder / "cells.h5ad"
    made = cells.adata()
    made.X = sparse.csc_matrix(made.X)
    made.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        shape = file["X"].attrs["shape"]
        del file["X"].attrs["shape"]
        file["X"].attrs["shape"] = np.asarray(shape, float)
    return path


FILES: dict[str, Callable[[Clean, Path], Path]] = {"ten_x_file": ten_x_file, "h5ad_by_columns": h5ad_by_columns}
