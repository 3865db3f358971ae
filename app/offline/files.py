"""Whole h5ad files on disk, streamed: memory does not grow with the number of cells."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scpalm.app.codecs.codec import CHUNK_CELLS
from scpalm.app.codecs.h5ad import tables_of
from scpalm.app.tasks.task import Task
from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.normalize import Declared
from scpalm.model.genes.prepare import Prepared, Preparer
from scpalm.model.genes.vocabulary import Coverage
from scpalm.model.io.h5ad import H5adFile
from scpalm.model.io.h5ad_writer import Column, H5adWriter, described
from scpalm.model.io.whole_file import replaced_when_whole
from scpalm.model.sessions.session import Session

_BLOCK_BYTES = 64 << 20  # of results at once: a cell's imputed genes are a hundred times its embedding


def process_file(
    source: Path,
    target: Path,
    bundle: Bundle,
    session: Session,
    tasks_of: Callable[[NDArray[np.int32], Mapping[str, object], int], tuple[Task, ...]],
    *,
    extras: Sequence[str] = (),
    layer: str | None = None,
    declared: Declared = "auto",
    on_start: Callable[[int, Coverage], None] = lambda num_cells, coverage: None,
    on_chunk: Callable[[int], None] = lambda num_cells: None,
) -> None:
    """Copy ``source`` to ``target`` and add the results of tasks to it; ``target`` is whole or absent.

    Args:
        tasks_of: what to compute, given the vocabulary position of each of the file's columns (-1 where unknown), what
            the file holds of ``extras`` (tables in ``obsm``), and its number of cells.
        layer: which matrix: None for X, ``raw``, or a layer's name.
        on_start: told the number of cells and the gene coverage. on_chunk: told the cells done, each time.

    Raises InputError for the cells, OSError for the disk.
    """
    if target.exists() and target.samefile(source):
        raise InputError("same-file", f"{target} is the input itself.", mend="Name another output file with -o.")
    with H5adFile(source, layer=layer) as cells:
        preparer = Preparer(bundle.vocabulary, cells.genes, cells.ensembl_ids, declared)
        tasks = tasks_of(preparer.target, tables_of(cells, extras), cells.num_cells)
        with replaced_when_whole(target) as partial:
            shutil.copyfile(source, partial)
            on_start(cells.num_cells, preparer.coverage)
            with H5adWriter(partial) as file:
                columns = {
                    task.name: file.column(
                        task.key,
                        cells.num_cells,
                        task.width,
                        task.dtype,
                        place=task.place,
                        var_columns=task.var_columns,
                    )
                    for task in tasks
                }
                start = 0
                prepared: Prepared | None = None
                for chunk in cells.chunks(CHUNK_CELLS):
                    prepared = preparer.prepare(chunk)
                    _compute(session, tasks, prepared, start, columns)
                    start += chunk.num_cells
                    on_chunk(chunk.num_cells)
                note: dict[str, object] = {
                    "model": {"name": bundle.name, "version": bundle.version},
                    "coverage": preparer.coverage.as_dict(),
                    "input": None if prepared is None else prepared.input.as_dict(),
                }
                for task in tasks:
                    note |= task.about()
                file.note(described(note, [(task.name, task.key, task.columns) for task in tasks]))


def _compute(
    session: Session, tasks: tuple[Task, ...], prepared: Prepared, first: int, columns: dict[str, Column]
) -> None:
    encoded = session.encode(tasks[0].reads(prepared))
    for task in tasks:
        step = max(1, _BLOCK_BYTES // (4 * task.width))
        for start in range(0, len(encoded), step):
            stop = min(start + step, len(encoded))
            values = task.run(session, encoded.slice(start, stop), first + start)
            columns[task.name].put(first + start, task.finish(values, prepared.slice(start, stop)))
