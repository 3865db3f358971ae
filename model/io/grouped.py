"""Sum the counts of cells by group, before the network: a group is then read like one cell with deep counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from scpalm.model.errors import InputError
from scpalm.model.genes.columns import GeneColumns
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.values.declared import Declaration
from scpalm.model.genes.values.normalize import check_chunk, detect_input
from scpalm.model.io.cells import CellSource, column_of
from scpalm.model.io.labels import Categories

MAX_GROUPS = 1000


@dataclass(frozen=True, eq=False)
class Grouping:
    """Groups of cells by a column of ``obs``. Cells without a value belong to none.

    Raises InputError if there is no group, or more than ``MAX_GROUPS``.
    """

    column: str
    groups: Categories

    def __post_init__(self) -> None:
        if not 0 < len(self.names) <= MAX_GROUPS:
            raise InputError(
                "too-many-groups" if self.names else "no-groups",
                f"obs['{self.column[:100]}'] has {len(self.names):,} groups of cells; it must have 1 to "
                f"{MAX_GROUPS:,}.",
                hint="Name a column such as the cell type, or the patient and cell type in one.",
                field="by",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups, in the order of the sums."""
        return self.groups.names

    @property
    def num_cells(self) -> int:
        """Number of cells before summing."""
        return len(self.groups.codes)

    def as_rows(self) -> Categories:
        """The column after summing: each group is a row."""
        return Categories(self.names, np.arange(len(self.names), dtype=np.int32))

    def sums(self, matrices: Iterable[CellMatrix], declared: Declaration) -> CellMatrix:
        """One row of counts for each group, from all cells of a file in order.

        Raises InputError for values that are not counts: their sums would mean nothing.
        """
        total: sparse.csr_array | None = None
        totals: dict[str, NDArray[np.float64]] = {}
        first: CellMatrix | None = None
        start = 0
        for matrix in matrices:
            matrix.validate()
            if first is None:
                first, report = matrix, detect_input(matrix, declared)
                if report.detected != "counts" or report.divide_by == "unit":
                    raise InputError(
                        "by-needs-counts",
                        f"by={self.column[:100]} sums the counts of each group, but the values are {report.detected}: "
                        f"{report.why}.",
                        hint="Send raw counts, or choose the matrix that holds them with layer=.",
                        field="by",
                    )
            check_chunk(matrix, report, declared)
            codes = self.groups.codes[start : start + matrix.num_cells]
            start += matrix.num_cells
            part = self._sum(matrix, codes)
            total = part if total is None else total + part
            for name in ("totals", "obs_totals"):
                if (values := getattr(matrix, name)) is not None:
                    own = np.bincount(codes[codes >= 0], values[codes >= 0], len(self.names)).astype(np.float64)
                    totals[name] = totals[name] + own if name in totals else own
        if first is None or total is None:
            raise InputError("no-cells", "The matrix has 0 cells.", hint="Send at least one cell.", field="X")
        total.sort_indices()
        return replace(
            first,
            indptr=total.indptr.astype(np.int64),
            indices=total.indices.astype(np.int32),
            data=total.data.astype(np.float32),
            cells=list(self.names),
            cells_in_all=None,
            totals=totals.get("totals"),
            obs_totals=totals.get("obs_totals"),
        )

    def _sum(self, matrix: CellMatrix, codes: NDArray[np.int32]) -> sparse.csr_array:
        cells = np.flatnonzero(codes >= 0)
        ones = np.ones(len(cells))
        member = sparse.csr_array((ones, (codes[cells], cells)), shape=(len(self.names), matrix.num_cells))
        shape = matrix.num_cells, matrix.num_genes
        counts = sparse.csr_array((matrix.data.astype(np.float64), matrix.indices, matrix.indptr), shape=shape)
        return sparse.csr_array(member @ counts)

    def tables(self, tables: Mapping[str, object]) -> dict[str, object]:
        """Tables ``{"genes", "values": [cells, genes]}`` as one row a group: the mean of the known values.

        Mutation calls (0, 1, -1 for unknown) become the call of most cells.
        """
        out: dict[str, object] = {}
        for name, table in tables.items():
            if not isinstance(table, dict) or "values" not in table:
                out[name] = table
                continue
            values = np.array(table["values"], dtype=np.float64)
            calls = name == "mutation"
            known = np.isfinite(values) & ~(calls & (values < 0))
            mean = np.full((len(self.names), values.shape[1]), np.nan)
            for group in range(len(self.names)):
                rows = self.groups.codes == group
                number = known[rows].sum(axis=0)
                total = np.where(known[rows], values[rows], 0).sum(axis=0)
                mean[group] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
            values = np.where(np.isnan(mean), -1, np.floor(mean + 0.5)) if calls else mean
            out[name] = {**table, "values": values.astype(np.float32)}
        return out


class GroupedCells:
    """A `CellSource` whose rows are the groups of another one."""

    def __init__(self, source: CellSource, column: str, declared: Declaration) -> None:
        self._source, self._declared = source, declared
        self._grouping = Grouping(column, column_of(source, column))

    @property
    def columns(self) -> GeneColumns:
        return self._source.columns

    @property
    def num_cells(self) -> int:
        return len(self._grouping.names)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups."""
        return self._grouping.names

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._source.__exit__(kind, error, traceback)

    def chunks(self, size: int) -> Iterator[CellMatrix]:
        yield from self._grouping.sums(self._source.chunks(size), self._declared).parts(size)

    def rows(self, start: int, stop: int) -> CellMatrix:
        raise InputError("by-whole-file", "Groups are sums over the whole file.", hint="Leave 'by' out.", field="by")

    def obs_column(self, name: str) -> NDArray[np.generic] | None:
        return np.array(self._grouping.names) if name == self._grouping.column else None

    def obs_names(self) -> list[str]:
        return [self._grouping.column]

    def tables(self, names: Sequence[str]) -> dict[str, object]:
        return self._grouping.tables(self._source.tables(names))
