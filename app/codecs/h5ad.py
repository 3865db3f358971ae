"""Cells as h5ad; the answer is the user's own file with one key added."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from scpalm.app.codecs.codec import CHUNK_CELLS, Answer, DecodeOptions
from scpalm.app.storage.values import row_blocks
from scpalm.model.io.h5ad import H5adFile
from scpalm.model.io.h5ad_writer import H5adWriter, described
from scpalm.model.io.matrix import CellMatrix


class H5adCodec:
    """Reads through `H5adFile`; bodies are files. Writes ``obsm[key]`` (or ``layers``) and ``uns["scpalm"]``."""

    name = "h5ad"
    media_type = "application/x-hdf5"
    media_types: tuple[str, ...] = ("application/x-hdf5", "application/x-hdf", "application/x-h5ad")
    suffix = ".h5ad"
    reads_files = True

    def decode(self, body: bytes | Path, options: DecodeOptions) -> Iterator[CellMatrix]:
        if isinstance(body, bytes):
            raise TypeError("an h5ad body must be a file")
        with H5adFile(body, layer=options.layer, max_cells=options.max_cells, max_bytes=options.max_bytes) as file:
            yield from file.chunks(CHUNK_CELLS)

    def members(self, body: bytes | Path, names: Sequence[str], options: DecodeOptions) -> dict[str, object]:
        """Dataframes of ``obsm``."""
        if isinstance(body, bytes):
            raise TypeError("an h5ad body must be a file")
        with H5adFile(body, layer=options.layer, max_bytes=options.max_bytes) as file:
            return tables_of(file, names)

    def encode(self, answer: Answer, target: Path, original: Path | None = None) -> bytes | None:
        if original is None:
            # anndata warns of repeated names and the like; the warning would reach nobody.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._write_new(answer, target)
        else:
            shutil.copyfile(original, target)
            self._write_into(answer, target)
        return None

    def _write_new(self, answer: Answer, target: Path) -> None:
        # anndata is slow to import, and only answers in h5ad to other formats need it.
        import anndata
        import pandas as pd

        anndata.AnnData(obs=pd.DataFrame(index=pd.Index(answer.obs_names, dtype=object))).write_h5ad(target)
        self._write_into(answer, target)

    def _write_into(self, answer: Answer, target: Path) -> None:
        with H5adWriter(target) as file:
            for part in answer.parts:
                num_cells, width = part.values.shape[0], part.values.shape[1]
                column = file.column(
                    part.key,
                    num_cells,
                    width,
                    part.values.dtype.type,
                    place=part.place,
                    var_columns=part.var_columns,
                )
                start = 0
                for block in row_blocks(part.values):
                    column.put(start, block)
                    start += len(block)
            file.note(described(answer.note(), [(part.name, part.key, part.columns) for part in answer.parts]))


def tables_of(file: H5adFile, names: Sequence[str]) -> dict[str, object]:
    """Those dataframes of ``obsm`` that are named, see `Codec.members`. Raises InputError, OverLimitError."""
    found = {name: file.obsm_table(name) for name in names}
    return {name: {"genes": table[0], "values": table[1]} for name, table in found.items() if table is not None}
