"""Which names of a file name its genes: the index of ``var``, or another column of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matching.repair import NO_NAMES, without_ending
from scpalm.model.genes.vocabulary import Vocabulary

FEW_SHARE = 0.25  # with a smaller share of known names, other columns of var are tried
_SAMPLE = 2_000  # names that decide whether a column of var holds names of genes
_MOST_COLUMNS = 60


@dataclass(frozen=True)
class ChosenNames:
    """The names of the columns of a matrix.

    Attributes:
        names: one for each column.
        names_from: the column of ``var`` that they are from, if not the index.
        notes: what a user should know about the choice.
    """

    names: list[str]
    names_from: str = ""
    notes: tuple[str, ...] = ()


def choose_names(vocabulary: Vocabulary, columns: GeneColumns) -> ChosenNames:
    """The index of ``var``, or a column of it if that names genes and the index does not; without a common ending."""
    chosen = _index_or_column(vocabulary, columns)
    shorter = without_ending(chosen.names)
    if shorter is None or _share(vocabulary, shorter) < max(FEW_SHARE, 2 * _share(vocabulary, chosen.names)):
        return chosen
    example = next(name for name, short in zip(chosen.names, shorter, strict=True) if name != short)
    note = f"Nearly all names have the same kind of ending, e.g. '{example}'. It was removed."
    return ChosenNames(shorter, chosen.names_from, (*chosen.notes, note))


def _index_or_column(vocabulary: Vocabulary, columns: GeneColumns) -> ChosenNames:
    names = [str(name) for name in columns.names]
    table, share = columns.table, _share(vocabulary, names)
    if table is None or columns.ensembl_ids is not None or share >= FEW_SHARE:
        return ChosenNames(names)
    best, best_share, values_of_best = "", max(2 * share, FEW_SHARE), names
    for column in table.columns_named()[:_MOST_COLUMNS]:
        values = table.names_of(column)
        if values is not None and len(values) == len(names) and (found := _share(vocabulary, values)) > best_share:
            best, best_share, values_of_best = column, found, list(values)
    if not best:
        return ChosenNames(names)
    note = f"The index of var does not name genes, so the names are those of var['{best}']."
    return ChosenNames([value or name for value, name in zip(values_of_best, names, strict=True)], best, (note,))


def _share(vocabulary: Vocabulary, names: Sequence[str]) -> float:
    step = max(1, len(names) // _SAMPLE)
    sample = [name for name in names[::step] if name.upper() not in NO_NAMES]
    return sum(vocabulary.find(name)[0] >= 0 for name in sample) / max(1, len(sample))
