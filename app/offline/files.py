"""Process files of cells as a stream, so that memory use does not grow with the number of cells."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np

from scpalm.app.offline.tables import H5AD, check_ending, open_table
from scpalm.model.engine import Engine
from scpalm.model.errors import InputError
from scpalm.model.io.grouped import GroupedCells
from scpalm.model.io.other_formats.convert import as_h5ad, folder_as_h5ad
from scpalm.model.output.h5ad_writer import H5adWriter, write_rows
from scpalm.model.output.note import anndata_note
from scpalm.model.output.whole_file import replaced_when_whole
from scpalm.model.progress import Progress
from scpalm.model.spec import RequestSpec, outputs_of, visible
from scpalm.model.stream import Block, Stream
from scpalm.model.tasks.task import Values

READABLE = "an .h5ad file, 10x's .h5 or matrix folder, an .h5mu file or a zarr store"


def refuse_same_file(target: Path, *sources: Path) -> None:
    """Raise InputError if the output is one of the inputs."""
    for source in sources:
        if target.exists() and target.samefile(source):
            raise InputError("same-file", f"{target} is the input file.", hint="Choose another output file with -o.")


@contextmanager
def readable(source: Path) -> Iterator[Path]:
    """The cells of a file or folder as h5ad: the file itself, or one that is removed afterwards.

    Raises InputError.
    """
    if not source.exists():
        raise InputError("no-such-file", f"{source} does not exist.", hint=f"Give {READABLE}.")
    with tempfile.TemporaryDirectory(prefix="scpalm-") as folder:
        yield folder_as_h5ad(source, Path(folder)) if source.is_dir() else as_h5ad(source, Path(folder))


def process_file(source: Path, target: Path, engine: Engine, spec: RequestSpec, progress: Progress) -> None:
    """Write the results of the tasks for the cells of ``source``. If it fails, ``target`` is not written.

    ``target`` ends in ``.h5ad`` for a copy of the source with the results added, or in ``.csv``, ``.tsv``, ``.parquet``
    or ``.npy`` for the results alone.

    Raises:
        InputError: the cells are invalid, or the ending is another one.
        ParameterError, MissingPartError: a task cannot run.
        OSError: reading or writing failed.
    """
    check_ending(target)
    with readable(source) as path:
        refuse_same_file(target, source)
        with engine.stream(path, spec) as stream, replaced_when_whole(target) as partial:
            progress.start(stream.reader.num_cells, stream.reader.coverage)
            if target.suffix.lower() == H5AD:
                source_cells = stream.reader.source
                if isinstance(source_cells, GroupedCells):
                    write_rows(partial, source_cells.names)
                else:
                    shutil.copyfile(path, partial)
                _add_results(partial, stream, progress)
            else:
                _write_table(partial, target.suffix.lower(), stream, progress)
            progress.tell(stream.note())


def _add_results(partial: Path, stream: Stream, progress: Progress) -> None:
    blocks = _blocks(stream, progress)
    outputs = visible(outputs_of(stream.tasks))
    with H5adWriter(partial) as file:
        columns = {output.name: file.column(output, stream.reader.num_cells) for output in outputs}
        for block in blocks:
            for name, column in columns.items():
                column.put(block.start, block.values[name])
        file.note(anndata_note(stream.note(), outputs))


def _write_table(partial: Path, suffix: str, stream: Stream, progress: Progress) -> None:
    blocks = _blocks(stream, progress)
    with open_table(partial, suffix, visible(outputs_of(stream.tasks)), stream.reader.num_cells) as table:
        for block in blocks:
            table.put(block.cells, block.values)


def _blocks(stream: Stream, progress: Progress) -> Iterator[Block]:
    """The results block by block; a single one if a task needs the values of all cells. The outputs are final then."""
    if any(task.concludes for task in stream.tasks):
        return iter([Block(0, *compute_all(stream, progress))])
    return _reported(stream, progress)


def _reported(stream: Stream, progress: Progress) -> Iterator[Block]:
    for block in stream:
        yield block
        progress.advance(len(block.cells))


def compute_all(stream: Stream, progress: Progress) -> tuple[list[str], dict[str, Values]]:
    """Names of the cells, and the concluded values of all outputs, in memory."""
    names: list[str] = []
    parts: dict[str, list[Values]] = {output.name: [] for output in stream.outputs}
    for block in stream:
        names += block.cells
        for name, values in block.values.items():
            parts[name].append(values)
        progress.advance(len(block.cells))
    found = {name: cast(Values, np.concatenate(arrays)) for name, arrays in parts.items()}
    for task in stream.tasks:
        if task.concludes:
            found |= task.conclude({output.name: found[output.name] for output in task.outputs})
    return names, found
