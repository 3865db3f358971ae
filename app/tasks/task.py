"""What a request may want of its cells. Every task starts from one pass of the network, so several cost one pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, Session, SessionInfo

Values = NDArray[np.float32] | NDArray[np.int32]
Scale = Literal["log", "counts"]
Place = Literal["obsm", "layers"]


class Task(ABC):
    """One kind of result. A new one is a class here, a route, and a line in `TASK_NAMES`.

    Attributes:
        name: of the route and in metrics. key: where an h5ad answer keeps the values.
        dtype, width: of the values ``[B, width]``. columns: what the columns stand for, where that has a name.
        counted: whether its cells are counted in metrics; not for what comes with another task.
        place: ``obsm``, or ``layers`` where columns are columns of the user's matrix: ``var_columns`` then says which
            column of the values each of them gets, -1 for none.
    """

    name: ClassVar[str]
    key: str
    dtype: type[np.float32] | type[np.int32]
    width: int
    columns: Sequence[str] | None = None
    counted: bool = True
    place: Place = "obsm"
    var_columns: NDArray[np.int64] | None = None

    def reads(self, prepared: Prepared) -> Rows:
        """What of the cells the network shall see; tasks of one request agree in it. Raises InputError."""
        return prepared.rows

    def about(self) -> dict[str, object]:
        """What is told of the results beside their values."""
        return {}

    def whole(self, values: Values) -> bool:
        """Whether a result can be sent: anything else than a finite number is a fault of the model."""
        return bool(np.isfinite(values).all())

    @abstractmethod
    def run(self, session: Session, cells: Encoded, first: int) -> Values:
        """On the device's thread: ``[B, width]`` of B cells, the first of which is cell ``first`` of the request."""

    def finish(self, values: Values, prepared: Prepared) -> Values:
        """Off the device: a last step that needs what was known of the cells before they became rows."""
        return values


def told_of(tasks: Sequence[Task]) -> dict[str, object]:
    """What is told of the results beside their values."""
    return {name: what for task in tasks for name, what in task.about().items()}


class Embed(Task):
    """``h_C [B, D]``."""

    name, key, dtype = "embed", "X_scpalm", np.float32

    def __init__(self, info: SessionInfo) -> None:
        self.width = info.embedding_width

    def run(self, session: Session, cells: Encoded, first: int) -> Values:
        return cells.embedding


class Pathways(Task):
    """Code index of each token, ``[B, N]``."""

    name, key, dtype = "pathways", "X_scpalm_pathways", np.int32

    def __init__(self, info: SessionInfo) -> None:
        self.width = info.num_tokens

    def run(self, session: Session, cells: Encoded, first: int) -> Values:
        return cells.codes


class PathwayShares(Task):
    """Share of a cell's tokens that have each code, ``[B, K]``; a row adds up to 1."""

    name, key, dtype = "pathways", "X_scpalm_pathway_shares", np.float32

    def __init__(self, info: SessionInfo) -> None:
        self.width = info.num_codes
        self.columns = [str(code) for code in range(info.num_codes)]

    def run(self, session: Session, cells: Encoded, first: int) -> Values:
        cell = np.arange(len(cells))[:, None] * self.width
        counts = np.bincount((cells.codes + cell).ravel(), minlength=len(cells) * self.width)
        return (counts.reshape(len(cells), self.width) / cells.codes.shape[1]).astype(np.float32)


class Impute(Task):
    """Values of chosen genes as the decoder of stage 1 sees them: log1p CP10K, or counts at the cell's own depth.

    Args:
        genes: vocabulary positions. names: of the columns, one a gene.
    """

    name, key, dtype = "impute", "X_scpalm_imputed", np.float32

    def __init__(self, genes: NDArray[np.int64], names: Sequence[str], scale: Scale = "log") -> None:
        self.columns = names
        self.width = len(genes)
        self.genes = genes
        self._scale = scale

    @classmethod
    def of_columns(cls, target: NDArray[np.int32], symbols: Sequence[str], scale: Scale) -> Impute:
        """The genes of a file's own columns: ``target`` is the vocabulary position of each, -1 where unknown."""
        genes, position = np.unique(target[target >= 0], return_inverse=True)
        task = cls(genes.astype(np.int64), [symbols[gene] for gene in genes], scale)
        task.key, task.place = "scpalm_imputed", "layers"
        task.var_columns = np.full(len(target), -1, dtype=np.int64)
        task.var_columns[target >= 0] = position
        return task

    def run(self, session: Session, cells: Encoded, first: int) -> Values:
        values = session.impute(cells.codes, self.genes)
        # The decoder's output is free; values of cells are not below 0.
        return np.maximum(values, 0.0, out=values)

    def finish(self, values: Values, prepared: Prepared) -> Values:
        if self._scale == "log":
            return values
        return np.expm1(values) * (prepared.totals / 1e4).astype(np.float32)[:, None]


TASK_NAMES = ("embed", "pathways", "impute", "ic50")
