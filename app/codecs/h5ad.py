"""Cells as h5ad; the answer is the user's own file with one key added."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import orjson

from app.codecs.codec import CHUNK_CELLS, Answer, DecodeOptions
from model.errors import InputError
from model.h5ad import H5adFile
from model.hdf5 import find, guarded, open_hdf5
from model.matrix import CellMatrix


class H5adCodec:
    """Reads through `model.h5ad`; bodies are files. Writes ``obsm[key]`` and ``uns["scpalm"]``."""

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

    def encode(self, answer: Answer, target: Path, original: Path | None = None) -> bytes | None:
        # anndata warns of repeated names and the like; the file is the user's, and the warning would reach nobody.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if original is None:
                self._write_new(answer, target)
            else:
                shutil.copyfile(original, target)
                self._write_into(answer, target)
        return None

    def _write_new(self, answer: Answer, target: Path) -> None:
        # anndata is slow to import, and only answers in h5ad need it.
        import anndata
        import pandas as pd

        adata = anndata.AnnData(obs=pd.DataFrame(index=pd.Index(answer.obs_names, dtype=object)))
        adata.obsm[answer.key] = answer.values
        adata.uns["scpalm"] = _describe(answer)
        adata.write_h5ad(target)

    def _write_into(self, answer: Answer, target: Path) -> None:
        from anndata.io import write_elem

        with open_hdf5(target, "r+") as file, guarded("The file"):
            for name in ("obsm", "uns"):
                if find(file, name) is None:
                    write_elem(file, name, {})
            # Through `find`: a link in the user's file must not make us write elsewhere.
            write_elem(_group(file, "obsm"), answer.key, np.ascontiguousarray(answer.values))
            write_elem(_group(file, "uns"), "scpalm", _describe(answer))


def _group(file: h5py.File, name: str) -> h5py.Group:
    node = find(file, name)
    if not isinstance(node, h5py.Group):
        raise InputError(
            "legacy-h5ad",
            f"'{name}' is stored as one table, the way anndata wrote it before version 0.7.",
            mend="Open the file with anndata.read_h5ad and write it again, or ask for JSON.",
            field=name,
        )
    return node


def _describe(answer: Answer) -> str:
    return orjson.dumps(
        {
            "model": {"name": answer.model_name, "version": answer.model_version},
            "key": answer.key,
            "coverage": answer.coverage.as_dict(),
            "input": answer.input.as_dict(),
        }
    ).decode()
