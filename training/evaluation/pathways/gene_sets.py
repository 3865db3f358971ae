"""Read gene sets from a GMT file, and test lists of genes for over-representation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import false_discovery_control, hypergeom

from scpalm.model.errors import UnreadableError

# Smaller sets cannot be tested with ten genes; larger ones are not specific pathways.
MIN_GENES, MAX_GENES = 5, 500


@dataclass(frozen=True, eq=False)
class GeneSets:
    """Sets over a background of genes.

    Attributes:
        names: ``[T]`` terms. members: ``[T, genes]`` bool, sparse.
    """

    names: tuple[str, ...]
    members: sparse.csr_matrix

    @property
    def num_genes(self) -> int:
        """Genes of the background."""
        return int(self.members.shape[1])


def read_gmt(path: Path | str) -> dict[str, list[str]]:
    """Term -> gene symbols. Raises UnreadableError that names an invalid line."""
    path = Path(path)
    if not path.is_file():
        raise UnreadableError("no-file", f"There is no file {path}.", hint="Check the path.")
    sets: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UnreadableError("not-gmt", f"{path} is not text.", hint="Name a .gmt file.") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, *rest = line.split("\t")
        genes = [gene.strip() for gene in rest[1:] if gene.strip()]
        if not name.strip() or not genes:
            raise UnreadableError(
                "not-gmt",
                f"{path.name}, line {number}, is not a gene set.",
                hint="Lines are: name, description, genes, separated by tabs.",
            )
        sets[name.strip()] = genes
    if not sets:
        raise UnreadableError("not-gmt", f"{path} has no gene set.", hint="Name a .gmt file.")
    return sets


def over(background: Sequence[str], sets: dict[str, list[str]]) -> GeneSets:
    """The sets that have 5 to 500 genes of ``background`` (unique gene symbols)."""
    place = {gene: i for i, gene in enumerate(background)}
    names, rows = [], []
    for name, genes in sets.items():
        own = sorted({place[gene] for gene in genes if gene in place})
        if MIN_GENES <= len(own) <= MAX_GENES:
            names.append(name)
            rows.append(own)
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    indices = np.array([i for row in rows for i in row], dtype=np.int64)
    members = sparse.csr_matrix(
        (np.ones(len(indices), dtype=np.float64), indices, indptr), shape=(len(names), len(background))
    )
    return GeneSets(tuple(names), members)


def over_representation(lists: NDArray[np.int64], sets: GeneSets) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Overlap and one-sided hypergeometric p value of every list with every set.

    Args:
        lists: ``[L, n]`` positions in the background, each once in a list.

    Returns:
        ``[L, T]`` genes in common, ``[L, T]`` probability of as many or more by chance.
    """
    num, size = lists.shape
    chosen = sparse.csr_matrix(
        (np.ones(lists.size), lists.ravel(), np.arange(num + 1) * size), shape=(num, sets.num_genes)
    )
    overlap = np.asarray((chosen @ sets.members.T).todense()).astype(np.int64)
    sizes = np.asarray(sets.members.sum(axis=1)).ravel().astype(np.int64)
    # There are few different (overlap, size) pairs: compute each once.
    pairs, place = np.unique(np.stack([overlap.ravel(), np.tile(sizes, num)]), axis=1, return_inverse=True)
    p = hypergeom.sf(pairs[0] - 1, sets.num_genes, pairs[1], size)[place.ravel()]
    return overlap, np.minimum(p, 1.0).reshape(overlap.shape)


def adjusted(p: NDArray[np.float64]) -> NDArray[np.float64]:
    """p values after Benjamini-Hochberg over all entries, in the same shape."""
    if not p.size:
        return p
    return np.asarray(false_discovery_control(p.ravel(), method="bh")).reshape(p.shape)
