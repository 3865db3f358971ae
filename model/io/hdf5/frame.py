"""Columns of ``obs`` and ``var`` of an h5ad file, in every encoding that anndata has used since 0.7."""

from __future__ import annotations

from functools import cached_property

import h5py
import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import InputError
from scpalm.model.io.hdf5.access import attribute, checked, child_names, find, guarded, read_strings

_WRITE_AGAIN = "Open the file with anndata.read_h5ad and write it again with write_h5ad."
_ALL = slice(None)


_INDEX_NAMES = (
    "features",
    "feature",
    "genes",
    "gene",
    "cell",
    "cells",
    "barcodes",
    "barcode",
    "rownames",
    "names",
    "name",
)
_MOST_COLUMNS = 2_000


class Frame:
    """One dataframe of an h5ad file.

    Args:
        node: the group of the dataframe, or the compound dataset that anndata wrote before 0.7.
        name: ``obs``, ``var`` or ``raw/var``, for messages.
        max_bytes: largest size of a column as declared by the file.

    Raises InputError if the group is missing (``missing-part``).
    """

    def __init__(self, node: h5py.Group | h5py.Dataset | None, name: str, max_bytes: int | None = None) -> None:
        if node is None:
            raise InputError(
                "missing-part",
                f"The file has no '{name}', which an h5ad file must have.",
                hint="Write it with anndata's write_h5ad.",
                field=name,
            )
        self._node = node
        self._name = name
        self._max_bytes = max_bytes

    def index(self, rows: slice = _ALL) -> list[str]:
        """Names of the rows, or of a slice of them. Raises InputError or UnreadableError."""
        name = self._index_name
        values = None if name is None else self.column(name, rows)
        if values is None:
            raise InputError(
                "missing-part",
                f"'{self._name}' has no index: neither an attribute '_index' nor a column that looks like names.",
                hint=f"Set it: h5py.File(path, 'r+')['{self._name}'].attrs['_index'] = 'name of the column'.",
                field=self._name,
            )
        if values.dtype.kind in "iu":
            return [str(int(value)) for value in values]
        if values.dtype != object:
            raise InputError(
                "not-strings", f"The index of '{self._name}' does not hold names.", hint=_WRITE_AGAIN, field=self._name
            )
        return values.tolist()

    @cached_property
    def _index_name(self) -> str | None:
        if isinstance(self._node, h5py.Dataset):
            return next((name for name in self.columns_named() if name in ("index", "_index")), None)
        given = attribute(self._node, "_index")
        if given:
            return given
        for name in ("_index", "index"):
            if find(self._node, name) is not None:
                return name
        # Writers other than anndata forget the attribute.
        names = self.columns_named()
        likely = [name for wanted in _INDEX_NAMES for name in names if name.lower() == wanted]
        for name in likely or names:
            values = self.names_of(name)
            if values and len(set(values)) == len(values):
                return name
        return None

    def columns_named(self) -> list[str]:
        """Names of the columns, the first of them if there are very many."""
        if isinstance(self._node, h5py.Dataset):
            return list(self._node.dtype.names or ())
        with guarded(f"The columns of '{self._name}'"):
            order = self._node.attrs.get("column-order")
            if order is not None and len(np.atleast_1d(order)):
                return [_text(name) for name in np.atleast_1d(order)[:_MOST_COLUMNS]]
        return [name for name in child_names(self._node, _MOST_COLUMNS) if name != "__categories"]

    def data_columns(self) -> list[str]:
        """The same without the index, which a file with no other column would list."""
        return [name for name in self.columns_named() if name != self._index_name]

    def columns(self, most: int) -> list[str]:
        """Names of the columns in order, without the index. Raises InputError if there are more than ``most``."""
        with guarded(f"The columns of '{self._name}'"):
            order = self._node.attrs.get("column-order")
            names = [] if order is None else [_text(name) for name in np.atleast_1d(order)[: most + 1]]
        if len(names) > most:
            raise InputError(
                "too-many-columns",
                f"'{self._name}' has more than {most} columns.",
                hint="Keep only the columns that are needed.",
                field=self._name,
            )
        return names

    def names_of(self, column: str) -> list[str] | None:
        """A column of strings, or None if it is absent or does not hold strings."""
        values = self._readable(column)
        return values.tolist() if values is not None and values.dtype == object else None

    def flags_of(self, column: str) -> NDArray[np.bool_] | None:
        """A column of booleans, or None if it is absent or does not hold booleans."""
        values = self._readable(column)
        return values.astype(np.bool_) if values is not None and values.dtype == np.bool_ else None

    def categories_of(self, column: str) -> list[str] | None:
        """The categories of a categorical column of strings in their order; None for any other column."""
        node = find(self._node, f"{column}/categories") if isinstance(self._node, h5py.Group) else None
        if not isinstance(node, h5py.Dataset) or node.ndim != 1 or h5py.check_string_dtype(node.dtype) is None:
            return None
        return [str(name) for name in read_strings(node, f"{self._name}/{column[:200]}")]

    def _readable(self, column: str) -> NDArray[np.generic] | None:
        try:
            return self.column(column)
        except InputError as error:
            # A column that is only looked at, such as one of arrays, is no reason to refuse the file.
            if error.code in ("unknown-encoding", "not-strings", "wrong-shape", "missing-part"):
                return None
            raise

    def column(self, column: str, rows: slice = _ALL) -> NDArray[np.generic] | None:
        """A column ``[rows]``, or None if there is none.

        Strings are Python strings ("" where missing), numbers are as stored (NaN where missing) and booleans are bool
        (False where missing). Raises InputError for any other content.
        """
        what = f"{self._name}/{column[:200]}"
        if isinstance(self._node, h5py.Dataset):
            return self._field(self._node, column, what, rows)
        node = find(self._node, column)
        if isinstance(node, h5py.Dataset):
            # anndata 0.7 kept the categories of all columns in one separate group.
            categories = find(self._node, f"__categories/{column}")
            if categories is None:
                return self._dataset(node, what, rows)
            return self._categorical(node, categories, what, rows)
        return None if node is None else self._group_column(node, what, rows)

    def _field(self, table: h5py.Dataset, column: str, what: str, rows: slice) -> NDArray[np.generic] | None:
        """A field of a compound dataset."""
        if column not in (table.dtype.names or ()):
            return None
        checked(table, self._name, max_bytes=self._max_bytes)
        with guarded(f"'{what}'"):
            values = np.asarray(table.fields(column)[rows])
            if values.dtype.kind == "S":
                values = np.char.decode(values, "utf-8")
            if values.dtype.kind == "O":
                values = np.array([_text(value) for value in values], dtype=object)
        return values.astype(object) if values.dtype.kind == "U" else values

    def _dataset(self, node: h5py.Dataset | h5py.Group | None, what: str, rows: slice = _ALL) -> NDArray[np.generic]:
        dataset = checked(node, what, max_bytes=self._max_bytes)
        with guarded(f"'{what}'"):
            if dataset.dtype.kind in "biuf":
                return np.asarray(dataset[rows])
        return read_strings(dataset, what, rows)

    def _group_column(self, group: h5py.Group, what: str, rows: slice = _ALL) -> NDArray[np.generic]:
        encoding = attribute(group, "encoding-type") or ""
        if encoding == "categorical":
            return self._categorical(find(group, "codes"), find(group, "categories"), what, rows)
        if not encoding.startswith("nullable-"):
            raise InputError(
                "unknown-encoding", f"'{what}' is stored as '{encoding[:50]}'.", hint=_WRITE_AGAIN, field=what
            )
        values = self._dataset(find(group, "values"), what, rows)
        mask = self._dataset(find(group, "mask"), what, rows)
        if mask.dtype != bool or len(mask) != len(values):
            raise InputError(
                "wrong-shape", f"The mask of '{what}' does not match its values.", hint=_WRITE_AGAIN, field=what
            )
        if values.dtype.kind in "iu":
            values = values.astype(np.float64)
        values[mask] = "" if values.dtype == object else False if values.dtype == bool else np.nan
        return values

    def _categorical(
        self,
        codes: h5py.Dataset | h5py.Group | None,
        categories: h5py.Dataset | h5py.Group | None,
        what: str,
        rows: slice,
    ) -> NDArray[np.generic]:
        position = self._dataset(codes, what, rows)
        # The categories are a group themselves if they are pandas nullable strings.
        if isinstance(categories, h5py.Group):
            if (attribute(categories, "encoding-type") or "") == "categorical":
                raise InputError(
                    "unknown-encoding",
                    f"The categories of '{what}' are categorical themselves.",
                    hint=_WRITE_AGAIN,
                    field=what,
                )
            known = self._group_column(categories, what)
        else:
            known = self._dataset(categories, what)
        if position.dtype.kind not in "iu" or (len(position) and (position.max() >= len(known) or position.min() < -1)):
            raise InputError(
                "index-out-of-range", f"'{what}' has codes without a category.", hint=_WRITE_AGAIN, field=what
            )
        if known.dtype == object:
            missing = np.array([""], dtype=object)
        elif known.dtype == bool:
            missing = np.array([False])
        else:
            missing = np.array([np.nan]) if len(position) and position.min() < 0 else known[:0]
        # Code -1 means missing; as an index it selects the last entry.
        return np.concatenate([known, missing])[position.astype(np.int64)]


def _text(name: object) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
