"""Labelled cells of a request, and the choice of which of them to use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.io.labels import Categories

# A reference travels with every batch of cells, and each cell is compared with all of it.
MAX_CELLS = 3000
MAX_CELLS_OF_A_LABEL = 300


@dataclass(frozen=True, eq=False)
class LabelledCells:
    """Labelled cells.

    Attributes:
        array: ``[R, D]`` embedding.
        labels: ``[R]`` labels.
    """

    array: NDArray[np.floating]
    labels: Categories


@contextmanager
def naming(source: object, field: str | None = None) -> Iterator[None]:
    """Let an InputError in the block say that it is about the reference, by its file name if it is a file.

    ``field``: the form field at fault, for services. Raises the same kind of InputError.
    """
    try:
        yield
    except InputError as error:
        name = f"'{Path(source).name}'" if isinstance(source, str | Path) else "given"
        kind = type(error) if type(error).__init__ is InputError.__init__ else InputError
        detail = f"The reference {name}: {error.detail}"
        raise kind(error.code, detail, hint=error.hint, field=field or error.field) from error


def choose_cells(labels: Categories) -> NDArray[np.int64]:
    """Positions of the labelled cells to use, ascending: at most 300 of a label and 3,000 in all.

    The same number is allowed for every label. Cells of a label are spread evenly over the file, so the choice needs no
    random numbers.

    Raises:
        InputError: there are more than 3,000 labels.
    """
    counts = np.bincount(labels.codes[labels.codes >= 0], minlength=len(labels.names))
    if len(labels.names) > MAX_CELLS:
        raise InputError(
            "too-many-labels",
            f"The labelled cells have {len(labels.names):,} different labels; the limit is {MAX_CELLS:,}.",
            hint="Choose a column with the types of the cells.",
        )
    limit = MAX_CELLS_OF_A_LABEL
    while np.minimum(counts, limit).sum() > MAX_CELLS:
        limit -= 1
    chosen = []
    for code, count in enumerate(counts):
        positions = np.flatnonzero(labels.codes == code)
        chosen.append(positions[np.linspace(0, count - 1, min(count, limit)).astype(np.int64)])
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))
