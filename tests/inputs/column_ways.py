"""Columns that are no genes, written next to the genes."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from tests.inputs.clean import Clean, Floats, way


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
def antibodies_without_types(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    names = ["CD3", "CD4", "CD16", "CD19", "CD56", "IgG1", "CD45RA", "HLA-DR", "CD8a_RPA-T8"]
    return _with(cells, names + cells.symbols[:2], rng.poisson(150, (len(cells.counts), len(names) + 2)))


@way("refused")
def antibodies_named_like_genes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    made = _with(cells, cells.symbols[:6], 99 * cells.sums + rng.poisson(9, (len(cells.counts), 6)))
    made.var_names_make_unique()
    return made


@way()
def guides(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    names = [f"{symbol}_{number}" for symbol in cells.symbols[:3] for number in (1, 2)] + ["NT_1", "NT_2"]
    names += [f"{cells.symbols[0]}_ACGTTGCAACGTTGCAACGT"]
    return _with(cells, names, rng.poisson(40, (len(cells.counts), len(names))))


@way()
def viral_genes(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    names = ["PB2", "PB1", "PA", "NP", "NA", "M", "NS", "SARS2_N", "GU280_gp01", "NC_045512.2"]
    return _with(cells, names, rng.poisson(90, (len(cells.counts), len(names))))


@way()
def measures_of_cells(cells: Clean, rng: np.random.Generator) -> ad.AnnData:
    names = ["total", "x_centroid", "cell_area", "intergenic", "library_size"]
    return _with(cells, names, rng.integers(1, 9000, (len(cells.counts), len(names))))


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
