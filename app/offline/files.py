"""Process files of cells as a stream, so that memory use does not grow with the number of cells."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scpalm.app.offline.tables import H5AD, check_ending, open_table
from scpalm.model.engine import Engine
from scpalm.model.errors import InputError
from scpalm.model.io.convert import as_h5ad, folder_as_h5ad
from scpalm.model.output.h5ad_writer import H5adWriter
from scpalm.model.output.note import anndata_note
from scpalm.model.output.whole_file import replaced_when_whole
from scpalm.model.progress import Progress
from scpalm.model.spec import RequestSpec
from scpalm.model.stream import Stream

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
                shutil.copyfile(path, partial)
                _add_results(partial, stream, progress)
            else:
                _write_table(partial, target.suffix.lower(), stream, progress)
            progress.tell(stream.note())


def _add_results(partial: Path, stream: Stream, progress: Progress) -> None:
    with H5adWriter(partial) as file:
        columns = {output.name: file.column(output, stream.reader.num_cells) for output in stream.outputs}
        for block in stream:
            for name, values in block.values.items():
                columns[name].put(block.start, values)
            progress.advance(len(block.cells))
        file.note(anndata_note(stream.note(), stream.outputs))


def _write_table(partial: Path, suffix: str, stream: Stream, progress: Progress) -> None:
    with open_table(partial, suffix, stream.outputs, stream.reader.num_cells) as table:
        for block in stream:
            table.put(block.cells, block.values)
            progress.advance(len(block.cells))
