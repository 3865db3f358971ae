"""Keep an HDF5 file that is sent to others to what is stored in it."""

from __future__ import annotations

import os

import h5py
from h5py import h5a, h5d, h5o, h5t

from scpalm.model.errors import InputError
from scpalm.model.io.hdf5.access import guarded

_WRITE_AGAIN = "Request JSON, or open the file with anndata.read_h5ad and write it again with write_h5ad."
# anndata before 0.8 names the categories of a column by a reference to their dataset.
_CATEGORIES = b"categories"


def keep_self_contained(file: h5py.File) -> None:
    """Remove references in attributes of a file, except those to categories. Open it for writing.

    Raises:
        InputError: ``external-storage`` for values in other files, ``references`` for values that are references.
        UnreadableError: the file is damaged.
    """
    # All names first, because attributes cannot be removed during a visit.
    names = [b"."]
    with guarded("The list of objects in the file"):
        h5o.visit(file.id, names.append)
    for name in names:
        with guarded(f"'{os.fsdecode(name)[:200]}'"):
            node = h5o.open(file.id, name)
            if isinstance(node, h5d.DatasetID):
                _check(node, os.fsdecode(name)[:200])
            _remove_references(node)


def _check(dataset: h5d.DatasetID, name: str) -> None:
    properties = dataset.get_create_plist()
    if properties.get_layout() == h5d.VIRTUAL or properties.get_external_count():
        raise InputError(
            "external-storage", f"'{name}' stores its values in other files.", hint=_WRITE_AGAIN, field=name
        )
    if _has_references(dataset.get_type()):
        raise InputError("references", f"'{name}' has references as values.", hint=_WRITE_AGAIN, field=name)


def _remove_references(node: h5o.ObjectID) -> None:
    attributes = [h5a.open(node, index=index) for index in range(h5a.get_num_attrs(node))]
    for attribute in attributes:
        if _has_references(attribute.get_type()) and not _names_categories(attribute):
            h5a.delete(node, attribute.name)


def _names_categories(attribute: h5a.AttrID) -> bool:
    return bool(attribute.name == _CATEGORIES and attribute.shape == () and attribute.dtype == h5py.ref_dtype)


def _has_references(kind: h5t.TypeID) -> bool:
    """Whether a type is a reference or has references in it."""
    if isinstance(kind, h5t.TypeVlenID | h5t.TypeArrayID):
        return _has_references(kind.get_super())
    return bool(kind.detect_class(h5t.REFERENCE))
