"""Results written into a copy of the user's own h5ad file, block by block, without anndata: it is slow to import."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import orjson
from numpy.typing import NDArray

from scpalm.app.tasks.task import Place, Values
from scpalm.model.errors import InputError, UnreadableError
from scpalm.model.io.hdf5 import find, open_hdf5

_MEND = "Open the file with anndata.read_h5ad and write it again"
NOTE_KEY = "scpalm"


@contextmanager
def _guarded() -> Iterator[None]:
    """Turn what h5py raises while the copy is written into an UnreadableError; OSError is the disk's and stays."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UnreadableError(
            "broken-h5ad",
            f"The results cannot be written into the copy of the file ({str(error)[:200]}).",
            mend=f"Check that the disk has room; else {_MEND[0].lower()}{_MEND[1:]} with write_h5ad.",
        ) from error


class H5adWriter:
    """A copy of a user's file, opened to add results to it; a context manager. Raises InputError."""

    def __init__(self, path: Path) -> None:
        self._file = open_hdf5(path, "r+")

    def __enter__(self) -> H5adWriter:
        return self

    def __exit__(self, *_: object) -> None:
        with _guarded():
            self._file.close()

    @_guarded()
    def column(
        self,
        key: str,
        num_cells: int,
        width: int,
        dtype: type[np.float32] | type[np.int32],
        *,
        place: Place = "obsm",
        var_columns: NDArray[np.int64] | None = None,
    ) -> Column:
        """A new matrix ``obsm[key]`` or ``layers[key]``; an older one of that name is replaced."""
        group = self._group(place)
        if key in group:
            del group[key]
        num_columns = width if var_columns is None else len(var_columns)
        values = group.create_dataset(key, (num_cells, num_columns), dtype)
        values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        return Column(values, var_columns)

    @_guarded()
    def note(self, what: dict[str, object]) -> None:
        """Keep ``what`` as JSON in ``uns["scpalm"]``."""
        uns = self._group("uns")
        if NOTE_KEY in uns:
            del uns[NOTE_KEY]
        text = uns.create_dataset(NOTE_KEY, data=orjson.dumps(what).decode(), dtype=h5py.string_dtype())
        text.attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})

    def _group(self, name: str) -> h5py.Group:
        # Through `find`: a link in the user's file must not make us write elsewhere.
        node = find(self._file, name)
        if node is None and name not in self._file:
            node = self._file.create_group(name)
            node.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        if not isinstance(node, h5py.Group):
            raise InputError(
                "legacy-h5ad",
                f"'{name}' is no plain group, or stored as one table, the way anndata wrote it before version 0.7.",
                mend=f"{_MEND}, or ask for JSON.",
                field=name,
            )
        return node


class Column:
    """One matrix on its way into the file."""

    def __init__(self, values: h5py.Dataset, var_columns: NDArray[np.int64] | None) -> None:
        self._values = values
        self._var_columns = var_columns

    @_guarded()
    def put(self, start: int, values: Values) -> None:
        """Rows ``start`` and following; columns of the user's matrix that have no values get NaN."""
        if self._var_columns is not None:
            known = self._var_columns >= 0
            spread = np.full((len(values), len(known)), np.nan, dtype=np.float32)
            spread[:, known] = values[:, self._var_columns[known]]
            values = spread
        self._values[start : start + len(values)] = values


def described(note: dict[str, object], parts: Sequence[tuple[str, str, Sequence[str] | None]]) -> dict[str, object]:
    """The note of an h5ad answer; ``parts`` are the (task, key, columns) of what was written."""
    columns = {key: list(names) for task, key, names in parts if names is not None and key.startswith("X_")}
    keys = {task: key for task, key, _ in parts}
    return {**note, "key": parts[0][1], "keys": keys, **({"columns": columns} if columns else {})}
