"""Name the types of the cells of a file."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scpalm.app.offline.files import compute_all, readable, refuse_same_file
from scpalm.app.offline.tables import H5AD, TABLES, check_ending, open_table
from scpalm.model.annotation.labelled import LabelledCells
from scpalm.model.engine import Engine
from scpalm.model.io.labels import LabelledBy
from scpalm.model.output.h5ad_writer import H5adWriter
from scpalm.model.output.note import anndata_note
from scpalm.model.output.whole_file import replaced_when_whole
from scpalm.model.progress import Progress
from scpalm.model.spec import RequestSpec
from scpalm.model.stream import Stream
from scpalm.model.tasks.task import Values


@dataclass(frozen=True)
class LabelSource:
    """A file of labelled cells.

    Attributes:
        path: an h5ad file, or another that `readable` takes.
        how: the column of ``obs`` with the labels, and the matrix to read.
    """

    path: Path
    how: LabelledBy = field(default_factory=LabelledBy)


@dataclass(frozen=True)
class Counts:
    """Number of cells, and how many of them are unknown."""

    cells: int
    unknown: int


def annotate_file(
    query: Path, reference: LabelSource | None, target: Path, engine: Engine, spec: RequestSpec, progress: Progress
) -> Counts:
    """Name the types of the cells of ``query``, and write them to ``target``. If it fails, ``target`` is not written.

    Args:
        query: h5ad file with the cells.
        reference: labelled cells; None for the reference of the model.
        target: output. ``*.csv``, ``*.tsv`` and ``*.parquet`` become a table. ``*.h5ad`` becomes a copy of ``query``
            with new columns of ``obs``, from ``scpalm_label`` on.
        engine: the model.
        spec: the options of the task, and how to read the query.
        progress: receives the number of cells done.

    Raises:
        InputError: one of the files cannot be used.
        MissingPartError: there is no reference.
        OSError: reading or writing failed.
    """
    check_ending(target, (H5AD, *TABLES))
    with readable(query) as cells:
        refuse_same_file(target, query, *([] if reference is None else [reference.path]))
        labelled = None if reference is None else _embed(reference, engine)
        with engine.stream(cells, spec, labelled=labelled) as stream:
            progress.start(stream.reader.num_cells, stream.reader.coverage)
            names, values = compute_all(stream, progress)
            with replaced_when_whole(target) as partial:
                if target.suffix.lower() == H5AD:
                    shutil.copyfile(cells, partial)
                    _add_columns(partial, stream, values)
                else:
                    with open_table(partial, target.suffix.lower(), stream.outputs, len(names)) as table:
                        table.put(names, values)
            progress.tell(stream.note())
    return Counts(len(names), int(values["annotate_unknown"].sum()))


def _embed(reference: LabelSource, engine: Engine) -> LabelledCells:
    with readable(reference.path) as path:
        return engine.embed_labelled(path, reference.how)


def _add_columns(partial: Path, stream: Stream, values: Mapping[str, Values]) -> None:
    with H5adWriter(partial) as file:
        for output in stream.outputs:
            file.column(output, stream.reader.num_cells).put(0, values[output.name])
        file.note(anndata_note(stream.note(), stream.outputs))
