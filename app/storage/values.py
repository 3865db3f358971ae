"""Arrays of results, in memory or in a file when they are large: written as they come, read in blocks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from scpalm.app.errors import StorageFullError
from scpalm.app.storage.memory_budget import MemoryBudget
from scpalm.app.storage.scratch import NO_ROOM, ensure_folder
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


@dataclass(frozen=True)
class ResultSpace:
    """Where the values of a request are kept.

    Attributes:
        directory: folder for large arrays.
        memory: budget of the arrays in memory.
    """

    directory: Path
    memory: MemoryBudget

    def array(self, shape: tuple[int, int], dtype: type[np.float32] | type[np.int32]) -> SpooledArray:
        """An array to fill."""
        return SpooledArray(shape, dtype, self.directory, self.memory)


class SpooledArray:
    """An array ``[rows, width]`` that is filled row by row; in a file in ``directory`` when it is large.

    It is in a file, too, if it does not fit ``memory``.

    Safe between threads. Raises StorageFullError when the disk is full. The file is written, not mapped: a write to a
    map on a full disk would kill the process.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: type[np.float32] | type[np.int32],
        directory: Path,
        memory: MemoryBudget | None = None,
    ) -> None:
        self._shape = shape
        self._dtype = cast("np.dtype[np.float32] | np.dtype[np.int32]", np.dtype(dtype))
        self._file: IO[bytes] | None = None
        num_bytes = shape[0] * shape[1] * self._dtype.itemsize
        if num_bytes <= IN_MEMORY_BYTES and (memory is None or memory.fits(num_bytes)):
            self._values = cast(Values, np.empty(shape, dtype))
            if memory is not None:
                memory.track(self._values)
            return
        with _storage_errors():
            descriptor, name = tempfile.mkstemp(".npy", "values-", ensure_folder(directory))
            self._path, self._file = Path(name), os.fdopen(descriptor, "wb", buffering=0)
            header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(self._file, header)
            self._offset = self._file.tell()

    @property
    def in_file(self) -> bool:
        """Whether writing it is a disk write."""
        return self._file is not None

    def put(self, start: int, values: Values) -> None:
        """Write values to rows ``start`` and following."""
        if self._file is None:
            self._values[start : start + len(values)] = values
            return
        left = np.ascontiguousarray(values, self._dtype).reshape(-1).view(np.uint8).data
        position = self._offset + start * self._shape[1] * self._dtype.itemsize
        with _storage_errors():
            while left:
                written = os.pwrite(self._file.fileno(), left, position)
                left, position = left[written:], position + written

    def finish(self) -> Values | StoredValues:
        """The filled array."""
        if self._file is None:
            return self._values
        with _storage_errors():
            self._file.close()
        return StoredValues(self._path, self._shape, self._dtype, self._offset)


@contextmanager
def _storage_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise StorageFullError(
            "The disk for results (SCPALM_SPOOL_DIR) is full. Try again later, or ask for fewer cells or genes.",
            retry_after=10,
        ) from error


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
