"""The genes of each code, and whether they share a pathway (paper A.4, B.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.training.evaluation.pathways.cells import PathwayCells
from scpalm.training.evaluation.pathways.gene_sets import GeneSets, adjusted, over, over_representation
from scpalm.training.metrics.rows import Row

TOP_GENES = 10
FDR = 0.05
PERMUTATIONS = 20
# Rare genes: the column sums of random codes already favour them.
MIN_CELLS, MIN_SHARE = 30, 0.005
Association = Literal["share", "correlation"]
METHODS: dict[str, Association] = {"scpalm": "share", "scpalm_correlation": "correlation"}


@dataclass(frozen=True, eq=False)
class CodePathways:
    """Genes and enriched terms of the codes.

    Attributes:
        genes: ``[K, 10]`` positions in the vocabulary, strongest first.
        terms: names of the ``T`` sets. overlap: ``[K, T]`` genes in common. adjusted: ``[K, T]`` p after
            Benjamini-Hochberg over all ``K T`` tests.
        hits: tests with an adjusted p of at most 0.05. null_hits: the same for codes permuted over cells.
    """

    genes: NDArray[np.int64]
    terms: tuple[str, ...]
    overlap: NDArray[np.int64]
    adjusted: NDArray[np.float64]
    hits: int
    null_hits: tuple[int, ...]


def code_pathways(
    cells: PathwayCells,
    num_codes: int,
    sets: dict[str, list[str]],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, CodePathways]:
    """Top genes of each code, their terms, and the null of permuted codes, for each of ``METHODS``.

    A gene is a candidate if at least 30 cells and 0.5 % of all cells express it. The background of the tests is the
    vocabulary. For the null, codes are permuted over cells (all codes of a cell together), 20 times.

    Raises:
        InputError: fewer than 10 genes pass, or no set has 5 genes of the vocabulary.
    """
    values = cells.values
    shown = np.asarray(values.getnnz(axis=0))
    candidates = np.flatnonzero(shown >= max(MIN_CELLS, MIN_SHARE * len(cells)))
    if len(candidates) < TOP_GENES:
        raise InputError(
            "too-few-genes",
            f"{len(candidates)} genes are seen in {max(MIN_CELLS, int(MIN_SHARE * len(cells)))} cells or more.",
            hint="Give more cells.",
        )
    background = over(cells.symbols, sets)
    if not background.names:
        raise InputError(
            "no-gene-set", "No gene set has 5 genes that the model knows.", hint="Name a GMT of human symbols."
        )
    common = sparse.csr_matrix(values[:, candidates])
    share = code_shares(cells.codes, num_codes)
    active = np.asarray(share.any(axis=0), dtype=np.bool_)
    rng = np.random.default_rng([seed, 0x70657274])
    tops = _top_genes(share, common)
    null: dict[str, list[int]] = {method: [] for method in METHODS}
    for number in range(permutations):
        progress(f"permutation {number + 1} of {permutations}")
        for method, top in _top_genes(share[rng.permutation(len(cells))], common).items():
            p = _tests(candidates[top], background, active)[1]
            null[method].append(int((adjusted(p) <= FDR).sum()))
    found = {}
    for method, top in tops.items():
        overlap, p = _tests(candidates[top], background, active)
        corrected = adjusted(p)
        hits = int((corrected <= FDR).sum())
        found[method] = CodePathways(candidates[top], background.names, overlap, corrected, hits, tuple(null[method]))
    return found


def _top_genes(share: NDArray[np.float32], values: sparse.csr_matrix) -> dict[str, NDArray[np.int64]]:
    """Method -> ``[K, 10]`` columns of ``values``; ties go to the lower column."""
    product = co_occurrence(share, values)
    return {
        method: np.argsort(-associate(product, share, values, kind), axis=1, kind="stable")[:, :TOP_GENES]
        for method, kind in METHODS.items()
    }


def _tests(
    top: NDArray[np.int64], sets: GeneSets, active: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    overlap, p = over_representation(top, sets)
    # An unused code has no genes.
    p[~active], overlap[~active] = 1.0, 0
    return overlap, p


def code_shares(codes: NDArray[np.integer], num_codes: int) -> NDArray[np.float32]:
    """``[cells, K]`` share of each code among a cell's tokens, of ``codes [cells, N]``."""
    cells, num_tokens = codes.shape
    flat = np.arange(cells)[:, None] * num_codes + codes
    counts = np.bincount(flat.ravel(), minlength=cells * num_codes)
    return (counts.reshape(cells, num_codes) / num_tokens).astype(np.float32)


def co_occurrence(share: NDArray[np.float32], values: sparse.csr_matrix) -> NDArray[np.float64]:
    """``[K, genes]`` sum over cells of ``x * share`` (paper A.4), of ``[cells, K]`` and ``[cells, genes]``."""
    return np.asarray(values.T @ share, dtype=np.float64).T


def associate(
    product: NDArray[np.float64], share: NDArray[np.float32], values: sparse.csr_matrix, kind: Association
) -> NDArray[np.float64]:
    """``[K, genes]`` strength of association of each gene with each code.

    Args:
        product: ``co_occurrence`` of ``share`` and ``values``.
        kind: ``share``: each gene's column is normalised to sum 1, as in the paper. ``correlation``: Pearson's r of
            share and value over cells, which removes the effect of how common either is.
    """
    if kind == "share":
        return product / np.maximum(product.sum(axis=0), np.finfo(np.float64).tiny)
    code_mean, code_spread = share.mean(axis=0, dtype=np.float64), share.std(axis=0, dtype=np.float64)
    gene_mean = np.asarray(values.mean(axis=0), dtype=np.float64).ravel()
    square = np.asarray(values.multiply(values).mean(axis=0), dtype=np.float64).ravel()
    gene_spread = np.sqrt(np.maximum(square - gene_mean**2, 1e-12))
    spread = np.outer(np.maximum(code_spread, 1e-6), gene_spread)
    return (product / len(share) - np.outer(code_mean, gene_mean)) / spread


def pathway_rows(dataset: str, num_cells: int, found: dict[str, CodePathways], seed: int) -> list[Row]:
    """One row per method: ``hits, null_hits_mean, null_hits_sd`` and the number of tests and cells."""
    out: list[Row] = []
    for method, result in found.items():
        null = np.array(result.null_hits, dtype=np.float64)
        out.append(
            {
                "task": "pathways",
                "dataset": dataset,
                "method": method,
                "seed": seed,
                "hits": result.hits,
                "null_hits_mean": float(null.mean()) if len(null) else 0.0,
                "null_hits_sd": float(null.std(ddof=1)) if len(null) > 1 else 0.0,
                "permutations": len(null),
                "codes_with_hits": int((result.adjusted <= FDR).any(axis=1).sum()),
                "tests": int(result.adjusted.size),
                "cells": num_cells,
            }
        )
    return out


def pathways_document(
    found: dict[str, CodePathways], symbols: Sequence[str], rows: Sequence[Row], sources: Sequence[str]
) -> dict[str, object]:
    """``pathways.json``: the genes of each code and its terms up to FDR 5 %, best first, and the null."""
    result = found["scpalm"]
    return {
        "sources": list(sources),
        "fdr": FDR,
        "tests": [dict(row) for row in rows],
        "codes": [_code(code, result, symbols) for code in range(len(result.genes))],
    }


def _code(code: int, result: CodePathways, symbols: Sequence[str]) -> dict[str, object]:
    p = result.adjusted[code]
    order = [int(i) for i in np.argsort(p, kind="stable") if p[i] <= FDR]
    return {
        "code": code,
        "genes": [symbols[gene] for gene in result.genes[code]],
        "hits": len(order),
        "terms": [
            {"term": result.terms[i], "adjusted_p": float(f"{p[i]:.3g}"), "genes": int(result.overlap[code, i])}
            for i in order
        ],
    }
