"""Writes results into a copy of the input h5ad file, block by block. Avoids anndata, which is slow to import."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from scpalm.model.errors import InputError, UnreadableError
from scpalm.model.io.hdf5.access import find, open_hdf5, other_name
from scpalm.model.io.hdf5.self_contained import keep_self_contained
from scpalm.model.output.note import NOTE_KEY, keep_columns
from scpalm.model.output.plain import Plain
from scpalm.model.output.plain_hdf5 import earlier_columns, plain_bytes, write_plain
from scpalm.model.tasks.task import OutputSpec, Values

_WRITE_AGAIN = "open the file with anndata.read_h5ad and write it again with write_h5ad"
_FULL = os.strerror(errno.ENOSPC)
_RESERVE = 256 << 10  # for what HDF5 writes in addition to values


@contextmanager
def _guarded() -> Iterator[None]:
    """Convert the exceptions that h5py raises while writing to UnreadableError. A full disk is an OSError."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if _FULL in str(error):  # h5py raises what HDF5 was doing, not why it could not
            raise OSError(errno.ENOSPC, _FULL) from error
        raise UnreadableError(
            "broken-h5ad",
            f"The results cannot be written into the copy of the file ({str(error)[:200]}).",
            hint=f"{_WRITE_AGAIN[0].upper()}{_WRITE_AGAIN[1:]}.",
        ) from error


class H5adWriter:
    """A copy of the input file, opened to add results; a context manager. Its content refers to no other file.

    Raises InputError, UnreadableError, OSError (a full disk).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = open_hdf5(path, "r+")
        try:
            keep_self_contained(self._file)
            self._reserve(0)
        except (InputError, UnreadableError, OSError):
            self._file.close()
            raise

    def __enter__(self) -> H5adWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _guarded():
            needed = None
            try:
                if error is None:
                    self._file.flush()  # what cannot be written is reported here; `close` may be silent
                    needed = self._file.id.get_filesize()
            finally:
                self._file.close()
            # HDF5 does not know of the reserved room. `close` may free space of the file, but takes no more.
            if needed is not None and self._path.stat().st_size > needed:
                os.truncate(self._path, needed)

    def _reserve(self, num_bytes: int) -> None:
        """Reserve room on the disk for this many more bytes: HDF5 may crash the process on a disk that fills up midway.

        What was not used is given back when the file is closed. Raises OSError.
        """
        if not hasattr(os, "posix_fallocate"):  # outside Linux
            return
        with self._path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), num_bytes + _RESERVE)

    @_guarded()
    def column(self, output: OutputSpec, num_cells: int) -> Column:
        """Create ``obsm[key]``, ``layers[key]`` or ``obs[key]``, replacing an older one of that name."""
        group = self._group(output.placement)
        if output.key in group:
            del group[output.key]
        if output.placement == "obs":
            self._reserve(num_cells * np.dtype(output.dtype).itemsize)
            return _obs_column(group, output, num_cells)
        width = output.width if output.var_columns is None else len(output.var_columns)
        self._reserve(num_cells * width * np.dtype(output.dtype).itemsize)
        values = group.create_dataset(output.key, (num_cells, width), output.dtype)
        values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return Column(values, output)

    @_guarded()
    def note(self, what: Mapping[str, Plain]) -> None:
        """Store ``what`` as ``uns["scpalm"]``; columns that an earlier note names are kept for keys not written now."""
        uns = self._group("uns")
        note = dict(what)
        if NOTE_KEY in uns:
            keep_columns(note, earlier_columns(uns))
            del uns[NOTE_KEY]
        self._reserve(plain_bytes(note))
        write_plain(uns, NOTE_KEY, note)

    def _group(self, name: str) -> h5py.Group:
        # A link in the user's file must not redirect the write.
        node = find(self._file, name)
        if isinstance(node, h5py.Group) and (other := other_name(self._file, name)) is not None:
            raise InputError(
                "linked-group",
                f"'{name}' is a link to '{other[:200]}', where the results would be written, too.",
                hint=f"Request JSON, or {_WRITE_AGAIN}.",
                field=name,
            )
        if node is None and name not in self._file:
            node = self._file.create_group(name)
            node.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        if not isinstance(node, h5py.Group):
            raise InputError(
                "legacy-h5ad",
                f"'{name}' is not a group, or is stored as one table, in the format of anndata before version 0.7.",
                hint=f"Request JSON, or {_WRITE_AGAIN}.",
                field=name,
            )
        return node


def _obs_column(obs: h5py.Group, output: OutputSpec, num_cells: int) -> Column:
    """A column of ``obs``: categorical for outputs with categories."""
    order = [str(name) for name in obs.attrs.get("column-order", ())]
    if output.categories is None:
        values = obs.create_dataset(output.key, (num_cells,), output.dtype)
        values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    else:
        column = obs.create_group(output.key)
        column.attrs.update({"encoding-type": "categorical", "encoding-version": "0.2.0", "ordered": False})
        texts = column.create_dataset("categories", data=list(output.categories), dtype=h5py.string_dtype())
        texts.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        values = column.create_dataset("codes", (num_cells,), np.int32)
        values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    names = [*(name for name in order if name != output.key), output.key]
    obs.attrs["column-order"] = np.array(names, dtype=h5py.string_dtype())
    return Column(values, output)


class Column:
    """One matrix or column of ``obs``, written to the file block by block."""

    def __init__(self, values: h5py.Dataset, output: OutputSpec) -> None:
        self._values = values
        self._output = output

    @_guarded()
    def put(self, start: int, values: Values) -> None:
        """Write the rows from ``start`` on. Input columns without values become NaN."""
        spread = self._output.spread(values)
        self._values[start : start + len(values)] = spread[:, 0] if self._output.placement == "obs" else spread


def write_rows(target: Path, names: Sequence[str]) -> None:
    """Write an h5ad file that has only the names of its rows."""
    # anndata is slow to import and needed only for results that are not added to a file.
    import anndata
    import pandas as pd

    # anndata warns about repeated names, for example, but users would not see the warnings.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anndata.AnnData(obs=pd.DataFrame(index=pd.Index(list(names), dtype=object))).write_h5ad(target)
