"""GeneColumns: what a file says about the columns of its matrix, before they are matched with the model's genes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError


class GeneTable(Protocol):
    """``var`` of a file: one row per gene."""

    def index(self) -> list[str]:
        """Names of the rows."""
        ...

    def columns_named(self) -> list[str]:
        """Names of the columns."""
        ...

    def names_of(self, column: str) -> list[str] | None:
        """A column of strings ("" where missing), or None if it is absent or does not hold strings."""
        ...

    def flags_of(self, column: str) -> NDArray[np.bool_] | None:
        """A column of booleans, or None if it is absent or does not hold booleans."""
        ...


@dataclass(frozen=True, eq=False)
class GeneColumns:
    """The columns of a matrix.

    Attributes:
        names: name of each column, a symbol or an Ensembl id.
        ensembl_ids: Ensembl id of each column ("" where unknown), or None if the file has none.
        kinds: type of each column (``Gene Expression``, ``Antibody Capture``, ...), or None.
        genomes: reference of each column (``GRCh38``, ``mm10``), or None.
        filtered: ``[columns]`` bool, columns whose values were removed, or None.
        table: all of ``var``, to find the names if ``names`` are unknown.
        cells: names of some rows, to tell a transposed matrix.
        of_file: the columns of the file itself, if these are those of ``raw``, which may be more.
    """

    names: Sequence[str]
    ensembl_ids: Sequence[str] | None = None
    kinds: Sequence[str] | None = None
    genomes: Sequence[str] | None = None
    filtered: NDArray[np.bool_] | None = None
    table: GeneTable | None = None
    cells: Sequence[str] = ()
    of_file: GeneColumns | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def key(self) -> tuple[object, ...]:
        """What decides about the genes of the columns, as long as ``table`` is not needed."""
        lists = (self.names, self.ensembl_ids, self.kinds, self.genomes)
        filtered = None if self.filtered is None else self.filtered.tobytes()
        return *(None if part is None else tuple(part) for part in lists), filtered


def check_length(length: int, expected: int, what: str, axis: str) -> None:
    """Raise InputError (``shape-mismatch``) if a part of a file does not have the length of its matrix."""
    if length != expected:
        raise InputError(
            "shape-mismatch",
            f"'{what}' has {length} {axis}, but the matrix has {expected}.",
            hint="Write the file again from a valid AnnData object.",
            field=what,
        )
