"""Guarded access to untrusted HDF5 files: links are checked before they are followed, datasets before they are read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import h5py
import numpy as np
from h5py import h5d, h5l, h5z
from numpy.typing import NDArray

from scpalm.model.errors import InputError, OverLimitError, UnreadableError
from scpalm.model.io.other_formats.magic import HDF5
from scpalm.model.io.other_formats.sniff import kind_of

MAX_NAME = 1_000  # characters in the name of a cell or gene
_MAX_LINKS = 200_000
_MAX_SOFT_LINKS = 8  # followed in a row, so that a cycle of soft links ends
_STRING_BLOCK = 16_384  # strings read at once, so that a small file cannot allocate all memory in one call
_WRITE_AGAIN = "Open the file with anndata.read_h5ad and write it again with write_h5ad."

Node: TypeAlias = h5py.Group | h5py.Dataset


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Convert the exceptions that h5py raises while it reads ``what`` to UnreadableError."""
    try:
        yield
    except (InputError, MemoryError, FileNotFoundError):
        raise
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise UnreadableError(
            "broken-h5ad", f"{what} cannot be read ({reason}).", hint=f"The file is damaged. {_WRITE_AGAIN}"
        ) from error


def open_hdf5(path: Path | str, mode: Literal["r", "r+"] = "r") -> h5py.File:
    """Open a file. It is refused if any of its links leads out of it.

    Raises UnreadableError (``no-such-file``, ``not-hdf5``, ``truncated-h5ad``, ``broken-h5ad``) and InputError
    (``external-link``).
    """
    path = Path(path)
    if not path.is_file():
        raise UnreadableError("no-such-file", f"There is no file {path}.", hint="Check the path.", field="file")
    with path.open("rb") as stream:
        head = stream.read(8)
    if head != HDF5 and not h5py.is_hdf5(path):
        kind = kind_of(path)
        raise UnreadableError("not-hdf5", kind.instead_of("an HDF5 file"), hint=kind.hint, field="file")
    try:
        # Locks fail on read-only and network file systems, and no other process writes to an upload.
        file = h5py.File(path, mode, locking=False)
    except MemoryError:
        raise
    except Exception as error:
        text = str(error)
        if "truncated" in text or "eof" in text.lower() or path.stat().st_size < 2048:
            raise UnreadableError(
                "truncated-h5ad",
                f"The HDF5 file is truncated after {path.stat().st_size} bytes.",
                hint="Copy or upload the whole file again.",
                field="file",
            ) from error
        raise UnreadableError(
            "broken-h5ad", f"The HDF5 file cannot be opened ({text[:200]}).", hint=_WRITE_AGAIN, field="file"
        ) from error
    try:
        _refuse_links_out(file)
    except BaseException:
        file.close()
        raise
    return file


def _refuse_links_out(file: h5py.File) -> None:
    seen = 0

    def visit(name: bytes, info: h5l.LinkInfo) -> str | None:
        nonlocal seen
        seen += 1
        if info.type not in (h5l.TYPE_HARD, h5l.TYPE_SOFT):
            return f"'{os.fsdecode(name)[:200]}' is a link out of the file"
        return "it has too many objects" if seen > _MAX_LINKS else None

    with guarded("The list of objects in the file"):
        # This visits the links themselves and follows neither soft nor external ones.
        fault = file.id.links.visit(visit, info=True)
    if fault:
        raise InputError("external-link", f"The file is refused: {fault}.", hint=_WRITE_AGAIN, field="file")


def find(group: h5py.Group, path: str, _hops: int = 0) -> Node | None:
    """The object at ``path`` below ``group``, or None. Links are checked before they are followed.

    Raises InputError (``external-link``) for a link out of the file, UnreadableError for a damaged object.
    """
    node: Node = group
    with guarded(f"'{path[:200]}'"):
        for part in path.split("/"):
            if not part or part == ".":
                continue
            if not isinstance(node, h5py.Group) or "\0" in part or not node.id.links.exists(part.encode()):
                return None
            kind = node.id.links.get_info(part.encode()).type
            if kind == h5l.TYPE_HARD:
                below: Node | None = node[part]
            elif kind == h5l.TYPE_SOFT and _hops < _MAX_SOFT_LINKS:
                target = node.id.links.get_val(part.encode()).decode()
                below = find(node.file if target.startswith("/") else node, target, _hops + 1)
            else:
                raise InputError(
                    "external-link",
                    f"'{path[:200]}' is a link that leads out of the file or in a circle.",
                    hint=_WRITE_AGAIN,
                    field=path[:200],
                )
            if not isinstance(below, h5py.Group | h5py.Dataset):
                return None
            node = below
    return node


def other_name(file: h5py.File, name: str) -> str | None:
    """Another path of the object that ``name``, a member of the root group, leads to; None if it has no other.

    Counts of links in the file are not trusted. Raises UnreadableError.
    """
    found: list[str] = []
    with guarded(f"'{name}'"):
        link = file.id.links.get_info(name.encode())
        if link.type != h5l.TYPE_HARD:
            return os.fsdecode(file.id.links.get_val(name.encode()))
        if file[name] == file["/"]:
            return "/"

        def visit(path: bytes, info: h5l.LinkInfo) -> bool | None:
            if info.type == h5l.TYPE_HARD and info.u == link.u and path != name.encode():
                found.append(os.fsdecode(path))
                return True
            return None

        file.id.links.visit(visit, info=True)
    return found[0] if found else None


def child_names(group: h5py.Group, limit: int = 20) -> list[str]:
    """Names of the first ``limit`` links of a group, for messages."""
    names: list[str] = []
    with guarded("The list of objects in the file"):
        for name in group:
            names.append(str(name)[:100])
            if len(names) == limit:
                break
    return names


def attribute(node: Node, name: str) -> str | None:
    """A string attribute, or None if it is absent or not a string."""
    with guarded(f"Attribute '{name}' of '{node.name}'"):
        value = node.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value) if isinstance(value, str) else None


def checked(node: Node | None, what: str, *, ndim: int = 1, max_bytes: int | None = None) -> h5py.Dataset:
    """Check that a dataset is stored in this file, with a known compression, ``ndim`` axes and at most ``max_bytes``.

    Raises InputError (``missing-part``, ``external-storage``, ``unknown-compression``, ``wrong-shape``) or
    OverLimitError (``declared-size``).
    """
    if not isinstance(node, h5py.Dataset):
        raise InputError("missing-part", f"'{what}' is missing from the file.", hint=_WRITE_AGAIN, field=what)
    with guarded(f"'{what}'"):
        properties = node.id.get_create_plist()
        # Check this before reading the shape: for a virtual dataset, that may already open other files.
        if properties.get_layout() == h5d.VIRTUAL or properties.get_external_count():
            raise InputError(
                "external-storage", f"'{what}' stores its values in other files.", hint=_WRITE_AGAIN, field=what
            )
        for position in range(properties.get_nfilters()):
            code, _, _, name = properties.get_filter(position)
            if not h5z.filter_avail(code):
                raise InputError(
                    "unknown-compression",
                    f"'{what}' is compressed with an unsupported filter ({code}, {name!r}).",
                    hint="Write the file with compression='gzip' or without compression.",
                    field=what,
                )
        shape, itemsize = node.shape, node.dtype.itemsize
        chunk = int(np.prod(node.chunks, dtype=np.float64)) if node.chunks else 0
    if shape is None or len(shape) != ndim:
        raise InputError(
            "wrong-shape", f"'{what}' has shape {shape}, but must have {ndim} axes.", hint=_WRITE_AGAIN, field=what
        )
    # In floats, because the product of the declared axes may overflow NumPy's integers.
    declared = max(float(np.prod(shape, dtype=np.float64)), float(chunk)) * itemsize
    refuse_over(declared, max_bytes, what)
    return node


def refuse_over(declared: float, max_bytes: int | None, what: str) -> None:
    """Raise OverLimitError if ``declared`` bytes exceed ``max_bytes``."""
    if max_bytes is not None and declared > max_bytes:
        raise OverLimitError(
            "declared-size",
            f"'{what}' takes {declared:.3g} bytes in memory, but the limit is {max_bytes}.",
            hint="Send fewer cells at a time, or a sparse matrix instead of a dense one.",
            field=what,
        )


def read_strings(dataset: h5py.Dataset, what: str, rows: slice = slice(None)) -> NDArray[np.object_]:
    """A string dataset ``[length]``, or a slice of it, as Python strings.

    Raises InputError (``not-strings``, ``name-too-long``) or UnreadableError (not UTF-8, damaged).
    """
    with guarded(f"'{what}'"):
        if h5py.check_string_dtype(dataset.dtype) is None:
            raise InputError("not-strings", f"'{what}' does not hold strings.", hint=_WRITE_AGAIN, field=what)
        first, last, _ = rows.indices(len(dataset))
        values = np.empty(max(0, last - first), dtype=object)
        for start in range(0, len(values), _STRING_BLOCK):
            stop = min(first + start + _STRING_BLOCK, last)
            block = [text.decode() for text in dataset[first + start : stop].tolist()]
            longest = max(map(len, block), default=0)
            if longest > MAX_NAME:
                raise InputError(
                    "name-too-long",
                    f"'{what}' has a string of {longest} characters.",
                    hint=f"Shorten names to at most {MAX_NAME} characters.",
                    field=what,
                )
            values[start : start + len(block)] = block
    return values
