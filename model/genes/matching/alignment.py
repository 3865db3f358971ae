"""What matching finds: the gene of each column, and how many there are of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.rows import GeneSet


@dataclass(frozen=True)
class Coverage:
    """How many of a file's genes the model knows, and by which name.

    Attributes:
        genes_in: columns of the file. genes_matched: columns found in the vocabulary.
        genes_of_model: different vocabulary genes found, at most ``genes_matched``.
        by_symbol, by_ensembl, by_alias: how the matched columns were found (alias includes previous symbols).
        repaired: matched columns whose names had to be repaired, by kind of repair.
        left_out: columns that are no human genes, by reason; they are no part of a cell's total either.
        unmatched: the first 20 names that were not found.
        notes: what a user should know about the names, in sentences.
    """

    genes_in: int
    genes_matched: int
    genes_of_model: int
    by_symbol: int
    by_ensembl: int
    by_alias: int
    repaired: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    unmatched: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def num_extra(self) -> int:
        """Columns that are no genes, or further columns of the same gene."""
        return sum(self.left_out.values()) + self.genes_matched - self.genes_of_model

    def as_dict(self) -> dict[str, object]:
        """The coverage as JSON. The notes are among the warnings of the response."""
        return {name: value for name, value in asdict(self).items() if name != "notes"}


@dataclass(frozen=True, eq=False)
class Alignment:
    """A file's columns in the vocabulary.

    Attributes:
        target: ``[genes_in]`` int32, vocabulary position of each column, -1 where unknown.
        left_out: ``[genes_in]`` bool, columns that are no genes.
        coverage: the report for the user.
        gene_set: the vocabulary genes that the file measured.
        names_from: column of ``var`` that the names are from, if not the index.
        repeated: columns at the end or the start, if there are several, whose genes have other columns as well.
    """

    target: NDArray[np.int32]
    left_out: NDArray[np.bool_]
    coverage: Coverage
    gene_set: GeneSet
    names_from: str = ""
    repeated: tuple[int, ...] = ()
