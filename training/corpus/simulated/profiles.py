"""Read reference expression profiles, and decide which of their columns can be sampled from."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.align import align
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.training.corpus.errors import CorpusError, naming

INDEX = "symbol"
# Columns with variances or parameters of a model. With rates of a negative binomial (`nb_logit`), no column is a mean.
NOT_EXPRESSION = ("var:", "scVar_", "nb_logit")
RATES = "nb_logit"
# In counts, the top gene of a cell type usually has 1 to 10 %. Logarithms and geometric means compress it to 0.02 to
# 0.3 %. Single columns overlap (nuclei: 0.28 %), so the median column decides for the file, which has one scale.
LOWEST_TOP_SHARE = 0.005


@dataclass(frozen=True)
class ProfileFile:
    """A parquet file of profiles: genes (index ``symbol``) x cell types.

    Attributes:
        path: the file. linear: skip the check of the scale; the values are known to be linear.
    """

    path: Path
    linear: bool = False

    @classmethod
    def parse(cls, text: str) -> ProfileFile:
        """``FILE`` or ``FILE:linear``."""
        name, colon, suffix = text.rpartition(":")
        if colon and suffix == "linear":
            return cls(Path(name), linear=True)
        return cls(Path(text))


@dataclass(frozen=True)
class Profile:
    """One cell type.

    Attributes:
        name: the column. tissue: from the column's name, or the file's stem.
        share: ``[G + 1]`` float64, sums to 1; the last entry is the share of genes outside the vocabulary.
    """

    name: str
    tissue: str
    share: NDArray[np.float64]


@dataclass(frozen=True)
class MeasuredGenes:
    """The genes that some columns of a file measure.

    Attributes:
        measured: ``[G]`` bool. genes_in: their number, with those outside the vocabulary.
        target: ``[genes_in]`` position in the vocabulary, G if outside.
        is_gene: ``[genes_in]`` off for antibodies, reporters and the like, which are no part of a cell's total.
    """

    measured: NDArray[np.bool_]
    genes_in: int
    target: NDArray[np.int64]
    is_gene: NDArray[np.bool_]


@dataclass
class ProfileTable:
    """The columns of one file that are fit for sampling.

    Attributes:
        path: the file. values: genes x columns.
        gene_sets: the different sets of genes that the columns measure. set_of: column -> number of its set.
        skipped: column -> why it was left out.
    """

    path: Path
    values: pd.DataFrame
    gene_sets: list[MeasuredGenes] = field(default_factory=list)
    set_of: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def profiles(self, gene_set: int) -> Iterator[Profile]:
        """The fit columns with this set of measured genes, in the order of the file."""
        genes = self.gene_sets[gene_set]
        for name in (name for name, number in self.set_of.items() if number == gene_set):
            values = self.values[name].to_numpy(np.float64)
            values = values[~np.isnan(values)]
            values[~genes.is_gene] = 0.0
            share = np.bincount(genes.target, weights=values, minlength=len(genes.measured) + 1)
            yield Profile(name, tissue_of(name, self.path.stem), share / share.sum())


def read_profiles(
    file: ProfileFile, vocabulary: Vocabulary, *, min_genes: int = 3000, skip: Sequence[str] = ()
) -> ProfileTable:
    """Read a file and choose its columns.

    Args:
        min_genes: columns that measure fewer genes of the vocabulary are skipped.
        skip: glob patterns of columns to leave out.

    Raises:
        CorpusError: not a parquet table of numbers with the index ``symbol``; a column has negative or infinite
            values or none above 0; no gene is known. The message names file and column.
    """
    table = ProfileTable(file.path, _read(file.path))
    rates = RATES in table.values.columns
    for name in table.values.columns:
        if name.startswith(NOT_EXPRESSION):
            table.skipped[name] = "not expression but a variance or a parameter"
        elif rates:
            table.skipped[name] = f"rates of a negative binomial, which are not means without {RATES}"
        elif pattern := next((p for p in skip if fnmatch.fnmatchcase(name, p)), None):
            table.skipped[name] = f"matches the pattern '{pattern}'"
        else:
            _check(table, name)
    with naming(file.path):
        _assign_gene_sets(table, vocabulary, min_genes)
    if not file.linear:
        _skip_compressed(table)
    return table


def tissue_of(column: str, stem: str) -> str:
    """The tissue in names such as ``Heart_HCA|Fibroblast`` and ``liver:Study_2019|B cell``, else the file's stem."""
    head, bar, _ = column.partition("|")
    return re.split("[:_]", head)[0].lower() if bar else stem


def _read(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise CorpusError(f"{path} is not a readable parquet file ({error}).") from error
    if INDEX in table.columns:
        table = table.set_index(INDEX)
    if table.index.name != INDEX or not all(isinstance(gene, str) for gene in table.index):
        raise CorpusError(f"{path} has no index '{INDEX}' with gene symbols. Rows are genes, columns are cell types.")
    table.columns = table.columns.astype(str)
    for name, kind in table.dtypes.items():
        if not pd.api.types.is_numeric_dtype(kind):
            raise CorpusError(f"{path}: column '{name}' does not hold numbers.")
    if table.columns.has_duplicates:
        raise CorpusError(f"{path}: two columns are named '{table.columns[table.columns.duplicated()][0]}'.")
    return table


def _check(table: ProfileTable, name: str) -> None:
    values = table.values[name].to_numpy(np.float64)
    values = values[~np.isnan(values)]
    problem = ""
    if (values < 0).any():
        problem = "has negative values: give CPM, TPM or mean counts"
    elif np.isinf(values).any():
        problem = "has infinite values"
    elif not values.any():
        problem = "has no value above 0"
    if problem:
        raise CorpusError(f"{table.path}: column '{name}' {problem}.")


def _assign_gene_sets(table: ProfileTable, vocabulary: Vocabulary, min_genes: int) -> None:
    """Align each different set of measured genes once. Raises InputError if too few genes are known."""
    symbols = table.values.index.to_numpy(object)
    known = align(vocabulary, GeneColumns(list(symbols))).target >= 0
    number: dict[bytes, int] = {}
    for name in table.values.columns:
        if name in table.skipped:
            continue
        present = ~np.isnan(table.values[name].to_numpy(np.float64))
        if (count := int((present & known).sum())) < min_genes:
            table.skipped[name] = f"measures {count:,} known genes, fewer than {min_genes:,}"
            continue
        if (key := present.tobytes()) not in number:
            number[key] = len(number)
            alignment = align(vocabulary, GeneColumns(list(symbols[present])))
            target = np.where(alignment.target < 0, len(vocabulary), alignment.target).astype(np.int64)
            table.gene_sets.append(MeasuredGenes(alignment.gene_set.measured, len(target), target, ~alignment.left_out))
        table.set_of[name] = number[key]


def _skip_compressed(table: ProfileTable) -> None:
    names = list(table.set_of)
    if not names:
        return
    values = table.values[names]
    top = float((values.max() / values.sum()).median())
    if top < LOWEST_TOP_SHARE:
        reason = f"the file's scale is not linear: the top gene has {top:.2%} of a median column"
        table.skipped.update(dict.fromkeys(names, reason))
        table.set_of.clear()
        table.gene_sets.clear()
