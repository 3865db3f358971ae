"""Keeps the corrections of recent gene sets."""

from __future__ import annotations

from scpalm.model.genes.rows import GeneSet
from scpalm.model.read_out.basis import Basis, Correction


class Corrections:
    """The corrections of the most recent gene sets."""

    MAX_GENE_SETS = 64

    def __init__(self, basis: Basis) -> None:
        self._basis = basis
        self._kept: dict[str, Correction] = {}

    def of(self, gene_set: GeneSet) -> Correction:
        """Takes some 0.1 s for a gene set that is not kept."""
        found = self._kept.pop(gene_set.digest, None) or self._basis.correction(gene_set)
        while len(self._kept) >= self.MAX_GENE_SETS:
            self._kept.pop(next(iter(self._kept)))
        self._kept[gene_set.digest] = found
        return found
