"""What every format has in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.app.storage.values import StoredValues
from scpalm.app.tasks.task import Place, Values
from scpalm.model.genes.normalize import InputReport
from scpalm.model.genes.vocabulary import Coverage
from scpalm.model.io.matrix import CellMatrix

# Cells of a file that are prepared at once, so that the first reach the device while others are still read; half a
# million values, which the processor's cache holds. The first ones decide what the values are (counts or log), so
# whoever reads a file takes this many: service and command line must come to the same result.
CHUNK_CELLS = 512


@dataclass(frozen=True)
class DecodeOptions:
    """What the request says about its cells, and what the service allows (None: no limit).

    Attributes:
        layer: which matrix of an h5ad file. max_cells: most cells. max_bytes: most bytes of the uncompressed matrix.
        header_bytes: of an inference request, the length of its JSON part; None: all of it.
    """

    layer: str | None = None
    max_cells: int | None = None
    max_bytes: int | None = None
    header_bytes: int | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """The result of one task for B cells.

    Attributes:
        name: of the task. key: where an h5ad answer keeps the values. values: ``[B, width]`` float32 or int32.
        columns: what the columns stand for, where that has a name.
        place, var_columns: ``layers`` when columns belong to columns of the user's matrix; see `Task`.
    """

    name: str
    key: str
    values: Values | StoredValues
    columns: Sequence[str] | None = None
    place: Place = "obsm"
    var_columns: NDArray[np.int64] | None = None

    @property
    def nbytes(self) -> int:
        return self.values.shape[0] * self.values.shape[1] * self.values.dtype.itemsize

    @property
    def whole(self) -> Values:
        """The values in memory."""
        return self.values.read(0, self.values.shape[0]) if isinstance(self.values, StoredValues) else self.values


@dataclass(frozen=True, eq=False)
class Answer:
    """Results for B cells, with what the user should know about them.

    Attributes:
        model_name, model_version: of the bundle. obs_names: the cells. parts: one a task, the route's own first.
        coverage: genes known. input: counts or log, and why. about: of the results, see `Task.about`.
    """

    model_name: str
    model_version: str
    obs_names: list[str]
    parts: list[Part]
    coverage: Coverage
    input: InputReport
    about: Mapping[str, object] = field(default_factory=dict)

    def note(self) -> dict[str, object]:
        """What is told beside the values."""
        return {
            "model": {"name": self.model_name, "version": self.model_version},
            "coverage": self.coverage.as_dict(),
            "input": self.input.as_dict(),
            **self.about,
        }


class Codec(Protocol):
    """One format.

    Attributes:
        name: short, for metrics. media_type: what it writes. media_types: what it reads; none where it only writes.
        suffix: of a file in this format. reads_files: whether its bodies must be files.
    """

    name: str
    media_type: str
    media_types: tuple[str, ...]
    suffix: str
    reads_files: bool

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        """Cells of a body, in order, in one or more parts that share their genes.

        Raises InputError, UnreadableError or OverLimitError, also between parts.
        """
        ...

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """What a body that has been decoded holds beside its cells, as far as it is named.

        A table is ``{"genes": [names], "values": [cells, names]}``. Raises InputError, OverLimitError.
        """
        ...

    def encode(self, answer: Answer, target: Path, original: Path | None = None) -> bytes | None:
        """The answer as bytes; or None, when it was written to ``target``.

        ``original`` is the request's body where that was a file of the same format: the codec may build upon it.
        """
        ...
