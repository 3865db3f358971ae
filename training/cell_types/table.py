"""What the labels of training and evaluation sets mean: ``cell_types.csv`` and ``evaluation_labels.csv``."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class CellType:
    """What one source means by one label.

    Attributes:
        label: as the source wrote it. source: ``obs.dataset`` of a training set, or the stem of a profile file.
        cell_ontology_id: such as ``CL:0000169``; empty where no term is certain.
        name: readable, such as ``pancreatic beta cell``.
        broad: one of 64 broad types; empty for cell lines, days of differentiation and mixtures of types.
        tissue: where the cells came from.
    """

    label: str
    source: str
    cell_ontology_id: str
    name: str
    broad: str
    tissue: str


class CellTypeTable:
    """Cell types by label and source.

    Example:
        >>> cell_type_table().find("beta", "pancreas_enge2017_smartseq2").broad
        'pancreatic beta cell'
    """

    def __init__(self, cell_types: Iterable[CellType]) -> None:
        self.cell_types = tuple(cell_types)
        self._by_source = {(cell_type.label, cell_type.source): cell_type for cell_type in self.cell_types}
        by_label: dict[str, list[CellType]] = defaultdict(list)
        for cell_type in self.cell_types:
            by_label[cell_type.label].append(cell_type)
        # A label that means the same in every source is also known in new sources.
        self._by_label = {
            label: found[0] for label, found in by_label.items() if len({(c.name, c.broad) for c in found}) == 1
        }

    def find(self, label: str, source: str = "") -> CellType | None:
        """The meaning of ``label`` in ``source``, else its meaning in all sources if they agree, else None.

        A label of a new source can also be a broad type or a readable name, in any case.
        """
        return self._by_source.get((label, source)) or self._by_label.get(label) or self._named(label, source)

    def _named(self, label: str, source: str) -> CellType | None:
        found = self._by_name.get(label.strip().casefold())
        return None if found is None else replace(found, label=label, source=source)

    @cached_property
    def _by_name(self) -> dict[str, CellType]:
        """Broad types and unambiguous readable names, in lower case."""
        by_name: dict[str, list[CellType]] = defaultdict(list)
        for cell_type in self.cell_types:
            by_name[cell_type.name.casefold()].append(cell_type)
        named = {
            name: replace(found[0], tissue="") for name, found in by_name.items() if len({c.broad for c in found}) == 1
        }
        return named | {broad.casefold(): CellType("", "", "", broad, broad, "") for broad in self.broad_types}

    @property
    def broad_types(self) -> list[str]:
        """All broad types, sorted."""
        return sorted({cell_type.broad for cell_type in self.cell_types} - {""})


@cache
def cell_type_table() -> CellTypeTable:
    """The table of the repository."""
    return CellTypeTable(CellType(**row) for row in _rows("cell_types.csv"))


@cache
def evaluation_labels() -> dict[str, dict[str, frozenset[str]]]:
    """Evaluation set -> label -> the broad types that count as right.

    The set of right types is empty for cells that are not scored, such as cell lines. Used to score, never to train.
    """
    accepted: dict[str, dict[str, frozenset[str]]] = defaultdict(dict)
    for row in _rows("evaluation_labels.csv"):
        known = accepted[row["dataset"]].get(row["label"], frozenset())
        accepted[row["dataset"]][row["label"]] = known | ({row["broad"]} if row["broad"] else frozenset())
    return dict(accepted)


def _rows(name: str) -> list[dict[str, str]]:
    with open(FOLDER / name, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
