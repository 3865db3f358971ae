"""The result: an AnnData zarr store without X, written in blocks of rows, and a ledger of finished rows."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scpalm.app.offline.cluster.atlas import Atlas, ClusterError
from scpalm.model.output.note import NOTE_KEY, anndata_note
from scpalm.model.tasks.embed import KEYS
from scpalm.model.tasks.task import OutputSpec

KEY = KEYS["embedding"]
_RUN, _DONE = "scpalm-run.json", "scpalm-done.txt"


class ResultWriter:
    """Writes rows of the result from a worker. Each task covers whole chunks, so two writers never share a file."""

    def __init__(self, folder: Path) -> None:
        import zarr

        self._folder = folder
        root = zarr.open_group(str(folder), mode="r+")
        self._values: Any = root[f"obsm/{KEY}"]
        self._names: Any = root["obs/_index"]

    def put(self, start: int, names: Sequence[str], values: NDArray[np.float32]) -> None:
        """Write one chunk of rows from ``start`` on, and flush it to disk."""
        rows = slice(start, start + len(values))
        self._values[rows] = values
        self._names[rows] = np.array(names, dtype=object)
        chunk = start // self._values.chunks[0]
        for array, coordinates in ((self._values, (chunk, 0)), (self._names, (chunk,))):
            _flush(self._folder / array.path / array.metadata.encode_chunk_key(coordinates))


class AtlasStore:
    """The folder ``OUT.partial``, which is renamed to ``OUT`` when all rows are done. A context manager.

    Raises ClusterError if the folder belongs to a different run, or if another process is writing it.
    """

    def __init__(self, out: Path, atlas: Atlas) -> None:
        self._out = out
        self.folder = out.with_name(f"{out.name}.partial")
        self._atlas = atlas
        if out.exists():
            raise ClusterError(f"{out} already exists. Remove it, or choose another output with -o.")
        if not self.folder.exists():
            self._create()
        self._lock = self._locked()
        self.done = self._read_done()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._lock)

    @property
    def rows_done(self) -> int:
        """Number of rows that are done."""
        return sum(stop - start for start, stop in self.done)

    def commit(self, start: int, stop: int) -> None:
        """Record rows that a worker has written."""
        with (self.folder / _DONE).open("a", encoding="ascii") as ledger:
            ledger.write(f"{start} {stop}\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        self.done.add((start, stop))

    def finish(self) -> None:
        """Rename the folder to its final name."""
        (self.folder / _DONE).unlink(missing_ok=True)
        (self.folder / _RUN).unlink()
        os.rename(self.folder, self._out)
        _flush(self._out.parent)

    def _create(self) -> None:
        # Created under a temporary name, so that a .partial folder always has the complete structure.
        fresh = self._out.with_name(f"{self._out.name}.new-{os.getpid()}")
        try:
            _make_store(fresh, self._atlas)
            (fresh / _RUN).write_text(json.dumps({"identity": self._atlas.identity, **self._atlas.note()}))
            os.rename(fresh, self.folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def _locked(self) -> int:
        try:
            lock = os.open(self.folder / _RUN, os.O_RDONLY)
        except FileNotFoundError:
            raise ClusterError(f"{self.folder} was not created by this command. Move or remove it.") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            run = json.loads((self.folder / _RUN).read_text())
        except BlockingIOError:
            os.close(lock)
            raise ClusterError(f"Another process is writing {self.folder}. Wait for it, or stop it first.") from None
        if run["identity"] != self._atlas.identity:
            os.close(lock)
            raise ClusterError(
                f"{self.folder} was started with a different input, model, option or release. Repeat that command to "
                "continue it, or remove the folder to start again."
            )
        return lock

    def _read_done(self) -> set[tuple[int, int]]:
        path = self.folder / _DONE
        lines = path.read_text(encoding="ascii").split("\n")[:-1] if path.exists() else []
        if path.exists():
            # Drop a line that a crash cut off; its rows are computed again.
            path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        return {(int(start), int(stop)) for start, stop in (line.split() for line in lines)}


def _make_store(folder: Path, atlas: Atlas) -> None:
    """Create an AnnData store (on-disk format 0.1.0) with cell names, ``obsm`` and ``uns``."""
    import zarr
    from anndata.io import write_elem

    def group(path: str, kind: str, kind_version: str, **more: object) -> Any:
        attributes = {"encoding-type": kind, "encoding-version": kind_version, **more}
        return zarr.create_group(store=str(folder), path=path, zarr_format=3, attributes=attributes)

    def array(parent: Any, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: Any, kind: str) -> None:
        attributes = {"encoding-type": kind, "encoding-version": "0.2.0"}
        parent.create_array(name, shape=shape, chunks=chunks, dtype=dtype, attributes=attributes)

    rows, num_cells = min(atlas.task_rows, atlas.num_cells), atlas.num_cells
    group("", "anndata", "0.1.0")
    frame = {"_index": "_index", "column-order": []}
    array(group("obs", "dataframe", "0.2.0", **frame), "_index", (num_cells,), (rows,), str, "string-array")
    array(group("var", "dataframe", "0.2.0", **frame), "_index", (0,), (1,), str, "string-array")
    obsm = group("obsm", "dict", "0.1.0")
    array(obsm, KEY, (num_cells, atlas.width), (rows, atlas.width), np.float32, "array")
    uns = group("uns", "dict", "0.1.0")
    note = anndata_note(atlas.note(), [OutputSpec("embed", KEY, atlas.width)])
    write_elem(uns, NOTE_KEY, note)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
