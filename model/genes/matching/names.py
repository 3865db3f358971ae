"""Which parts of ``var`` name the columns of a matrix, by the same rules for every kind of file."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scpalm.model.genes.columns import GeneColumns, GeneTable, check_length

_SYMBOL_COLUMNS = (
    *("symbol", "symbols", "featurename", "genesymbol", "genesymbols", "genename", "genenames", "geneshortname"),
    *("hgncsymbol", "externalgenename", "genes", "gene"),
)
_ENSEMBL_COLUMNS = (
    *("ensemblid", "ensemblids", "geneid", "geneids", "featureid", "ensembl", "ensemblgeneid", "ensg", "id"),
)
_KIND_COLUMNS = ("featuretypes", "featuretype", "modality", "featurecategory")
_GENOME_COLUMNS = ("genome", "genomes")
_MOST_COLUMNS, _MOST_KINDS = 40, 30
_ENSEMBL_ID = re.compile(r"^ENS[A-Z]*G\d{11}(?:[._]\w+)*$", re.MULTILINE)


def name_genes(var: GeneTable, name: str, num_genes: int, cells: Sequence[str] = ()) -> GeneColumns:
    """Find the names of the ``num_genes`` columns of a matrix.

    Names are the index of ``var``, unless the index holds Ensembl ids (or plain numbers) and a column holds symbols.
    Ensembl ids are the index, or a column that holds them. The names of columns are compared without case and
    punctuation, and without the number that a concatenation adds (``feature_types-0``).

    Args:
        var: the table.
        name: its name in messages.
        num_genes: number of columns of the matrix.
        cells: names of some rows.

    Raises InputError (``shape-mismatch``).
    """
    names = var.index()
    check_length(len(names), num_genes, name, "genes")
    columns = _Columns(var, name, num_genes)
    named_by_id = mostly_ensembl(names)
    symbols = None
    if named_by_id or all(text.isdigit() for text in names):
        symbols = columns.first(_SYMBOL_COLUMNS, ensembl=False)
    if named_by_id:
        # A gene without a symbol keeps its Ensembl id as its name.
        ids: list[str] | None = names
        names = [s or id_ for s, id_ in zip(symbols, names, strict=True)] if symbols else names
    else:
        ids = columns.first(_ENSEMBL_COLUMNS, ensembl=True)
        if symbols:
            names = [symbol or number for symbol, number in zip(symbols, names, strict=True)]
    filtered = var.flags_of("feature_is_filtered")
    if filtered is not None:
        check_length(len(filtered), num_genes, f"{name}/feature_is_filtered", "genes")
    return GeneColumns(
        names,
        ids,
        columns.first(_KIND_COLUMNS, ensembl=False) or columns.holding("geneexpression"),
        columns.first(_GENOME_COLUMNS, ensembl=False),
        filtered,
        var,
        cells,
    )


class _Columns:
    """Columns of ``var`` by their plain names."""

    def __init__(self, var: GeneTable, name: str, length: int) -> None:
        self._var, self._name, self._length = var, name, length
        self._names: dict[str, list[str]] = {}
        for column in var.columns_named():
            self._names.setdefault(plain(column), []).append(column)

    def first(self, wanted: Sequence[str], *, ensembl: bool) -> list[str] | None:
        """The first of the wanted columns with strings (Ensembl ids, if ``ensembl``)."""
        for name in wanted:
            for column in self._names.get(name, ()):
                values = self._var.names_of(column)
                if values is not None and any(values) and (not ensembl or mostly_ensembl(values)):
                    check_length(len(values), self._length, f"{self._name}/{column}", "genes")
                    return values
        return None

    def holding(self, value: str) -> list[str] | None:
        """A column of few different strings, one of which is ``value`` apart from case and punctuation."""
        for column in [name for names in self._names.values() for name in names][:_MOST_COLUMNS]:
            values = self._var.names_of(column)
            if values is not None and len(values) == self._length:
                kinds = set(values[:: max(1, self._length // 5000)]) | set(values[-50:])
                if len(kinds) <= _MOST_KINDS and value in map(plain, kinds):
                    return values
        return None


def plain(column: str) -> str:
    """The name of a column without case, punctuation and the number of a concatenated batch."""
    return re.sub(r"[^a-z]", "", re.sub(r"-\d+$", "", column).lower())


def mostly_ensembl(names: Sequence[str]) -> bool:
    """Whether more than half of the non-empty names are Ensembl gene ids of any species."""
    given = sum(1 for name in names if name)
    # One search through the joined names is much faster than matching each name.
    return 2 * sum(1 for _ in _ENSEMBL_ID.finditer("\n".join(names))) > given
