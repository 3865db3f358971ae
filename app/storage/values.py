"""Arrays of results, in memory or in a file when they are large: written as they come, read in blocks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from scpalm.app.storage.scratch import ensure_folder
from scpalm.model.tasks.task import Values

IN_MEMORY_BYTES = 16 << 20
BLOCK_BYTES = 8 << 20


@dataclass(frozen=True)
class StoredValues:
    """An array ``[rows, width]`` in a ``.npy`` file.

    It is read, not mapped, because the address space of parser processes is limited.
    """

    path: Path
    shape: tuple[int, int]
    dtype: np.dtype[np.float32] | np.dtype[np.int32]
    offset: int

    def as_dict(self) -> dict[str, object]:
        """The JSON form."""
        return {"path": str(self.path), "shape": self.shape, "dtype": self.dtype.name, "offset": self.offset}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> StoredValues:
        """The values that `as_dict` described."""
        rows, width = stored["shape"]
        return cls(Path(stored["path"]), (rows, width), np.dtype(stored["dtype"]), stored["offset"])

    def read(self, start: int, stop: int) -> Values:
        """Rows ``start`` to ``stop``."""
        count = (stop - start) * self.shape[1]
        offset = self.offset + start * self.shape[1] * self.dtype.itemsize
        part = cast(Values, np.fromfile(self.path, self.dtype, count, offset=offset))
        return part.reshape(stop - start, self.shape[1])


class SpooledArray:
    """An array ``[rows, width]`` that is filled row by row; in a file in ``directory`` when it is large."""

    def __init__(self, shape: tuple[int, int], dtype: type[np.float32] | type[np.int32], directory: Path) -> None:
        self._path: Path | None = None
        self._values: Values
        if shape[0] * shape[1] * np.dtype(dtype).itemsize <= IN_MEMORY_BYTES:
            self._values = cast(Values, np.empty(shape, dtype))
            return
        with tempfile.NamedTemporaryFile(
            dir=ensure_folder(directory), prefix="values-", suffix=".npy", delete=False
        ) as file:
            self._path = Path(file.name)
        self._mapped: np.memmap[tuple[int, int], np.dtype[np.float32]] = np.lib.format.open_memmap(
            self._path, "w+", dtype, shape
        )
        self._values = self._mapped

    @property
    def in_file(self) -> bool:
        """Whether writing it is a disk write."""
        return self._path is not None

    def put(self, start: int, values: Values) -> None:
        """Write values to rows ``start`` and following."""
        self._values[start : start + len(values)] = values

    def finish(self) -> Values | StoredValues:
        """The filled array."""
        if self._path is None:
            return self._values
        self._mapped.flush()
        values = self._mapped
        return StoredValues(self._path, (values.shape[0], values.shape[1]), np.dtype(values.dtype.type), values.offset)


def rows_per_block(values: Values | StoredValues, block_bytes: int = BLOCK_BYTES) -> int:
    """Number of rows in a block of ``block_bytes``, at least 1."""
    return max(1, block_bytes // max(1, values.shape[1] * values.dtype.itemsize))


def row_blocks(values: Values | StoredValues, step: int | None = None) -> Iterator[Values]:
    """The rows in order, ``step`` at a time; by default a block of BLOCK_BYTES."""
    num_rows = values.shape[0]
    step = step or rows_per_block(values)
    for start in range(0, num_rows, step):
        stop = min(start + step, num_rows)
        yield values.read(start, stop) if isinstance(values, StoredValues) else values[start:stop]
