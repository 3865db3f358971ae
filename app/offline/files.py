"""Process h5ad files as a stream, so that memory use does not grow with the number of cells."""

from __future__ import annotations

import shutil
from pathlib import Path

from scpalm.model.engine import Engine
from scpalm.model.errors import InputError
from scpalm.model.output.h5ad_writer import H5adWriter
from scpalm.model.output.note import anndata_note
from scpalm.model.output.whole_file import replaced_when_whole
from scpalm.model.progress import Progress
from scpalm.model.spec import RequestSpec


def refuse_same_file(target: Path, *sources: Path) -> None:
    """Raise InputError if the output is one of the inputs."""
    for source in sources:
        if target.exists() and target.samefile(source):
            raise InputError("same-file", f"{target} is the input file.", hint="Choose another output file with -o.")


def process_file(source: Path, target: Path, engine: Engine, spec: RequestSpec, progress: Progress) -> None:
    """Copy ``source`` to ``target`` and add the results of the tasks. If it fails, ``target`` is not written.

    Raises:
        InputError: the cells are invalid.
        ParameterError, MissingPartError: a task cannot run.
        OSError: reading or writing failed.
    """
    if not source.is_file():
        raise InputError("no-such-file", f"{source} is not a file.", hint="Give an .h5ad file.")
    refuse_same_file(target, source)
    with engine.stream(source, spec) as stream, replaced_when_whole(target) as partial:
        num_cells = stream.reader.num_cells
        shutil.copyfile(source, partial)
        progress.start(num_cells, stream.reader.coverage)
        with H5adWriter(partial) as file:
            columns = {output.name: file.column(output, num_cells) for output in stream.outputs}
            for block in stream:
                for name, values in block.values.items():
                    columns[name].put(block.start, values)
                progress.advance(len(block.cells))
            file.note(anndata_note(stream.note(), stream.outputs))
