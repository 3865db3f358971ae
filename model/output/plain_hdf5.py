"""Plain values in an HDF5 file, encoded as anndata reads them. Avoids anndata, which is slow to import."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from scpalm.model.output.note import NOTE_KEY
from scpalm.model.output.plain import Plain

_BYTES_OF_OBJECT = 2048  # what HDF5 needs for a group or dataset with its attributes
_MOST_COLUMNS = 100_000  # names of an earlier note


def write_plain(parent: h5py.Group, name: str, value: Plain) -> None:
    """Write a value as ``parent[name]``, which must not exist. Raises what h5py raises."""
    if isinstance(value, dict):
        group = parent.create_group(name)
        group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        for key, member in value.items():
            write_plain(group, key, member)
        return
    data: Any = value
    kind, text = "numeric-scalar", None
    if isinstance(value, str):
        kind, text = "string", h5py.string_dtype()
    elif isinstance(value, np.ndarray):
        kind, text = ("string-array", h5py.string_dtype()) if value.dtype == object else ("array", None)
    node = parent.create_dataset(name, data=data, dtype=text)
    node.attrs.update({"encoding-type": kind, "encoding-version": "0.2.0"})


def plain_bytes(value: Plain) -> int:
    """Room on the disk that a value needs at most."""
    if isinstance(value, dict):
        return _BYTES_OF_OBJECT + sum(plain_bytes(member) + 2 * len(name) for name, member in value.items())
    if isinstance(value, str):
        return _BYTES_OF_OBJECT + 8 * len(value)
    if isinstance(value, np.ndarray) and value.dtype == object:
        return _BYTES_OF_OBJECT + sum(4 * len(text) + 32 for text in value.tolist())
    return _BYTES_OF_OBJECT + (value.nbytes if isinstance(value, np.ndarray) else 0)


def earlier_columns(uns: h5py.Group) -> dict[str, dict[str, list[str]]]:
    """The names of columns in the note of an earlier result, as a note. Follows no links out of the note."""
    note = uns.get(NOTE_KEY)
    columns = note.get("columns") if isinstance(note, h5py.Group) else None
    if not isinstance(columns, h5py.Group):
        return {}
    own = [key for key in columns if isinstance(columns.get(key, getlink=True), h5py.HardLink)]
    return {"columns": {key: [str(text) for text in columns[key].asstr()[:]] for key in own if _names(columns[key])}}


def _names(node: object) -> bool:
    """Whether a node is a list of names of a plausible length."""
    if not isinstance(node, h5py.Dataset) or node.ndim != 1 or node.size > _MOST_COLUMNS:
        return False
    return h5py.check_string_dtype(node.dtype) is not None
