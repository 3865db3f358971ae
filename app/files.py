"""Whole h5ad files on disk, streamed: memory does not grow with the number of cells."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from app.codecs.codec import CHUNK_CELLS
from app.whole_file import replaced_when_whole
from model.bundle import Bundle
from model.errors import InputError, UnreadableError
from model.genes import Coverage
from model.h5ad import H5adFile
from model.hdf5 import open_hdf5
from model.normalize import Declared, InputReport
from model.prepare import Preparer
from model.sessions import Session

EMBEDDING_KEY = "X_scpalm"


def embed_file(
    source: Path,
    target: Path,
    bundle: Bundle,
    session: Session,
    *,
    layer: str | None = None,
    declared: Declared = "auto",
    on_start: Callable[[int, Coverage], None] = lambda num_cells, coverage: None,
    on_chunk: Callable[[int], None] = lambda num_cells: None,
) -> None:
    """Copy ``source`` to ``target`` and add ``obsm["X_scpalm"]`` ``[cells, D]`` float32; ``target`` is whole or absent.

    Args:
        layer: which matrix: None for X, ``raw``, or a layer's name.
        on_start: told the number of cells and the gene coverage. on_chunk: told the cells done, each time.

    Raises InputError for the cells, OSError for the disk.
    """
    if target.exists() and target.samefile(source):
        raise InputError("same-file", f"{target} is the input itself.", mend="Name another output file with -o.")
    with H5adFile(source, layer=layer) as cells:
        preparer = Preparer(bundle.vocabulary, cells.genes, cells.ensembl_ids, declared)
        with replaced_when_whole(target) as partial:
            shutil.copyfile(source, partial)
            on_start(cells.num_cells, preparer.coverage)
            with _opened(partial) as file:
                values = _new_embedding(file, cells.num_cells, session.info.embedding_width)
                start = 0
                report: InputReport | None = None
                for chunk in cells.chunks(CHUNK_CELLS):
                    prepared = preparer.prepare(chunk)
                    report = prepared.input
                    _store(values, start, session.run("embed", prepared.rows))
                    start += chunk.num_cells
                    on_chunk(chunk.num_cells)
                _note_model(file, bundle, preparer.coverage, report)


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
            f"The embeddings cannot be written into the copy of the file ({str(error)[:200]}).",
            mend="Check that the disk has room; else write the file again with a current anndata.",
        ) from error


@contextmanager
def _opened(path: Path) -> Iterator[h5py.File]:
    file = open_hdf5(path, "r+")
    try:
        yield file
    finally:
        with _guarded():
            file.close()


@_guarded()
def _store(values: h5py.Dataset, start: int, embeddings: NDArray[np.float32] | NDArray[np.int32]) -> None:
    values[start : start + len(embeddings)] = embeddings


def _group(file: h5py.File, name: str) -> h5py.Group:
    if name not in file:
        group = file.create_group(name)
        group.attrs.update({"encoding-type": "dict", "encoding-version": "0.1.0"})
        return group
    # A link could lead out of the copy, into a file that is not ours to change.
    group = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(group, h5py.Group):
        raise InputError(
            "broken-h5ad",
            f"'{name}' is not a plain group.",
            mend="Write the file again with a current anndata.",
            field=name,
        )
    return group


@_guarded()
def _new_embedding(file: h5py.File, num_cells: int, width: int) -> h5py.Dataset:
    obsm = _group(file, "obsm")
    if EMBEDDING_KEY in obsm:
        del obsm[EMBEDDING_KEY]
    values = obsm.create_dataset(EMBEDDING_KEY, (num_cells, width), np.float32)
    values.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
    return values


@_guarded()
def _note_model(file: h5py.File, bundle: Bundle, coverage: Coverage, report: InputReport | None) -> None:
    note = {
        "model": {"name": bundle.name, "version": bundle.version},
        "coverage": coverage.as_dict(),
        "input": None if report is None else {"detected": report.detected, "why": report.why},
    }
    uns = _group(file, "uns")
    if "scpalm" in uns:
        del uns["scpalm"]
    text = uns.create_dataset("scpalm", data=json.dumps(note), dtype=h5py.string_dtype())
    text.attrs.update({"encoding-type": "string", "encoding-version": "0.2.0"})
