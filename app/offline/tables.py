"""Results as a table (csv, tsv, parquet) or an array (npy), written block by block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.tasks.task import OutputSpec, Values

H5AD = ".h5ad"
TABLES = (".csv", ".tsv", ".parquet")
ENDINGS = (H5AD, *TABLES, ".npy")


class Table(Protocol):
    """Where the blocks of a result go, in order."""

    def put(self, cells: Sequence[str], values: Mapping[str, Values]) -> None:
        """Write the values of some cells."""
        ...


def check_ending(target: Path, endings: Sequence[str] = ENDINGS) -> None:
    """Raise InputError if the output does not have the ending of a supported format."""
    if target.suffix.lower() in endings:
        return
    more = " Only `scpalm embed --cluster` writes zarr." if target.suffix == ".zarr" else ""
    raise InputError(
        "unknown-output",
        f"{target} does not end in one of {', '.join(endings)}.{more}",
        hint="Choose the format by the ending of -o.",
    )


@contextmanager
def open_table(target: Path, suffix: str, outputs: Sequence[OutputSpec], num_cells: int) -> Iterator[Table]:
    """Open a table for the results of all cells. Columns of further outputs begin with the output's name and ``:``.

    An npy array has the first output alone, and no names.
    """
    if suffix == ".npy":
        yield _Array(target, outputs[0], num_cells)
    elif suffix == ".parquet":
        with _parquet(target, outputs) as table:
            yield table
    else:
        with target.open("w", encoding="utf-8", newline="") as file:
            yield _Text(file, outputs, "," if suffix == ".csv" else "\t")


def _columns(outputs: Sequence[OutputSpec]) -> list[str]:
    """Names of all columns."""
    names: list[str] = []
    for number, output in enumerate(outputs):
        own = output.columns if output.columns is not None else [f"{output.name}_{i}" for i in range(output.width)]
        names += list(own) if number == 0 or output.placement == "obs" else [f"{output.name}:{name}" for name in own]
    return names


def as_written(output: OutputSpec, values: Values) -> Values | NDArray[np.object_]:
    """The values, or the texts of outputs with categories."""
    return values if output.categories is None else output.texts(values)


class _Array:
    def __init__(self, target: Path, output: OutputSpec, num_cells: int) -> None:
        self._output, self._start = output, 0
        dtype: type[np.generic] | str = output.dtype
        if output.categories is not None:
            dtype = f"U{max(map(len, output.categories), default=1)}"
        self._values = np.lib.format.open_memmap(target, "w+", dtype, (num_cells, output.width))

    def put(self, cells: Sequence[str], values: Mapping[str, Values]) -> None:
        block = values[self._output.name]
        self._values[self._start : self._start + len(cells)] = as_written(self._output, block)
        self._start += len(cells)
        self._values.flush()


class _Text:
    def __init__(self, file, outputs: Sequence[OutputSpec], separator: str) -> None:  # type: ignore[no-untyped-def]
        import csv

        self._writer, self._outputs = csv.writer(file, delimiter=separator), outputs
        self._writer.writerow(["cell", *_columns(outputs)])

    def put(self, cells: Sequence[str], values: Mapping[str, Values]) -> None:
        blocks = [as_written(output, values[output.name]).astype(object) for output in self._outputs]
        for cell, *rows in zip(cells, *blocks, strict=True):
            self._writer.writerow([cell, *(value for row in rows for value in row)])


@contextmanager
def _parquet(target: Path, outputs: Sequence[OutputSpec]) -> Iterator[Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = [
        pa.from_numpy_dtype(output.dtype) if output.categories is None else pa.string()
        for output in outputs
        for _ in range(output.width)
    ]
    fields = [pa.field(name, kind) for name, kind in zip(_columns(outputs), kinds, strict=True)]
    schema = pa.schema([pa.field("cell", pa.string()), *fields])

    class Rows:
        def put(self, cells: Sequence[str], values: Mapping[str, Values]) -> None:
            tables = [as_written(output, values[output.name]) for output in outputs]
            columns = [column for table in tables for column in np.ascontiguousarray(table.T)]
            arrays = [pa.array(cells, pa.string()), *map(pa.array, columns)]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        yield Rows()
