"""Cells as h5ad. The response is the uploaded file with the results added."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from scpalm.app.codecs.codec import DecodeOptions
from scpalm.app.codecs.registry import register_reader, register_writer
from scpalm.app.codecs.result import Result
from scpalm.app.storage.values import row_blocks
from scpalm.model.errors import InputError
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import CHUNK_CELLS
from scpalm.model.io.cells import column_of
from scpalm.model.io.hdf5.h5ad import H5adFile
from scpalm.model.io.hdf5.view_facts import ViewFacts
from scpalm.model.io.labels import Categories
from scpalm.model.io.other_formats.convert import as_h5ad
from scpalm.model.output.h5ad_writer import H5adWriter, write_rows
from scpalm.model.output.note import anndata_note

MEDIA_TYPE = "application/x-hdf5"


@register_reader
@register_writer
class H5adCodec:
    """Reads files with `H5adFile`. Writes ``obsm[key]`` or ``layers[key]``, and ``uns["scpalm"]``."""

    name = "h5ad"
    media_type = MEDIA_TYPE
    media_types: tuple[str, ...] = (MEDIA_TYPE, "application/x-hdf", "application/x-h5ad")
    suffix = ".h5ad"
    reads_files = True
    hidden = False
    extends_files = True

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        with _open(body, options) as file:
            yield from file.chunks(CHUNK_CELLS)

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """The named dataframes in ``obsm``."""
        with _open(body, options) as file:
            return file.tables(names)

    def obs_columns(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, Categories]:
        """See `scpalm.app.codecs.codec.HasObs`."""
        with _open(body, options) as file:
            return {name: column_of(file, name) for name in names}

    def view_facts(self, body: bytes | Path, options: DecodeOptions) -> ViewFacts:
        """See `scpalm.app.codecs.codec.HasObs`."""
        with _open(body, options) as file:
            return file.view_facts()

    def encode(self, result: Result, target: Path, original: Path | None = None) -> bytes | None:
        if original is None:
            write_rows(target, result.cells)
        else:
            # A 10x or MuData file is answered with the h5ad file that it was read as.
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                shutil.copyfile(as_h5ad(original, Path(folder)), target)
        with H5adWriter(target) as file:
            for output in result.outputs:
                column = file.column(output.spec, len(result.cells))
                start = 0
                for block in row_blocks(output.values):
                    column.put(start, block)
                    start += len(block)
            file.note(anndata_note(result.note, [output.spec for output in result.outputs]))
        return None


def _open(body: bytes | Path, options: DecodeOptions) -> H5adFile:
    if isinstance(body, bytes):
        raise TypeError("An h5ad body must be a file.")
    opened = partial(H5adFile, layer=options.layer, max_cells=options.max_cells, max_bytes=options.max_bytes)
    try:
        return opened(body)
    except InputError as error:
        if options.scratch is None or error.code not in ("not-h5ad", "not-hdf5"):
            raise
    # Only now, so that an h5ad file is opened once. The folder is that of one upload.
    folder = options.scratch / "converted"
    folder.mkdir(parents=True, exist_ok=True)
    return opened(as_h5ad(body, folder, options.max_bytes))
