"""The result: an AnnData store in zarr without X, written by rows, and a ledger of the rows that are in it."""

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
from scpalm.model.tasks.embed import KEY
from scpalm.model.tasks.task import OutputSpec

_RUN, _DONE = "scpalm-run.json", "scpalm-done.txt"


class ResultWriter:
    """Rows of the result, as workers write them. Tasks own whole chunks, so no two writers share a file."""

    def __init__(self, folder: Path) -> None:
        import zarr

        self._folder = folder
        root = zarr.open_group(str(folder), mode="r+")
        self._values: Any = root[f"obsm/{KEY}"]
        self._names: Any = root["obs/_index"]

    def put(self, start: int, names: Sequence[str], values: NDArray[np.float32]) -> None:
        """Rows ``start`` and following, a whole chunk (or the last one), on the disk when this returns."""
        rows = slice(start, start + len(values))
        self._values[rows] = values
        self._names[rows] = np.array(names, dtype=object)
        number = start // self._values.chunks[0]
        for array, place in ((self._values, (number, 0)), (self._names, (number,))):
            _flush(self._folder / array.path / array.metadata.encode_chunk_key(place))


class AtlasStore:
    """The folder ``OUT.partial``, which becomes ``OUT`` once every row is there. A context manager; one at a time.

    Raises ClusterError where the folder belongs to another run, or to one that goes on.
    """

    def __init__(self, out: Path, atlas: Atlas) -> None:
        self._out = out
        self.folder = out.with_name(f"{out.name}.partial")
        self._atlas = atlas
        if out.exists():
            raise ClusterError(f"{out} is there already. Remove it, or name another output with -o.")
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
        return sum(stop - start for start, stop in self.done)

    def commit(self, start: int, stop: int) -> None:
        """Note rows that a worker has written."""
        with (self.folder / _DONE).open("a", encoding="ascii") as ledger:
            ledger.write(f"{start} {stop}\n")
            ledger.flush()
            os.fsync(ledger.fileno())
        self.done.add((start, stop))

    def finish(self) -> None:
        """Give the store its name."""
        (self.folder / _DONE).unlink(missing_ok=True)
        (self.folder / _RUN).unlink()
        os.rename(self.folder, self._out)
        _flush(self._out.parent)

    def _create(self) -> None:
        # Made under another name: a folder called .partial is complete but for its rows.
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
            raise ClusterError(f"{self.folder} is not of this command. Move it out of the way.") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            run = json.loads((self.folder / _RUN).read_text())
        except BlockingIOError:
            os.close(lock)
            raise ClusterError(f"Another command is writing {self.folder}. Wait for it, or stop it first.") from None
        if run["identity"] != self._atlas.identity:
            os.close(lock)
            raise ClusterError(
                f"{self.folder} was begun with another input, model, option or release. Repeat that command to go on "
                "with it, or remove the folder to begin anew."
            )
        return lock

    def _read_done(self) -> set[tuple[int, int]]:
        path = self.folder / _DONE
        lines = path.read_text(encoding="ascii").split("\n")[:-1] if path.exists() else []
        if path.exists():
            # A line that was cut off by a crash is of rows that will be computed again.
            path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        return {(int(start), int(stop)) for start, stop in (line.split() for line in lines)}


def _make_store(folder: Path, atlas: Atlas) -> None:
    """An AnnData store (on-disk format 0.1.0) of cell names, ``obsm`` and ``uns``."""
    import zarr

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
    array(uns, NOTE_KEY, (), (), str, "string")
    uns[NOTE_KEY][()] = json.dumps(anndata_note(atlas.note(), [OutputSpec("embed", KEY, atlas.width)]))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
