"""``scpalm embed --cluster``: cells per second, memory over time and correctness, with cells repeated to any number.

    python tests/bench/bench_cluster.py [--cells 20000] [--processes 1 2] [--source FILE.h5ad] [--folder DIR]

Every output row is compared with the result of one process for the original file: the same cell must have the same bits
at any position. With --folder the files are kept, and an interrupted run continues.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import psutil  # type: ignore[import-untyped, unused-ignore]
from numpy.typing import NDArray
from scipy import sparse

from scpalm.app.offline.cluster.driver import ClusterOptions, embed_atlas
from scpalm.app.offline.files import process_file
from scpalm.app.offline.sample import write_sample
from scpalm.model.bundle import Bundle
from scpalm.model.engine import load
from scpalm.model.progress import NoProgress
from scpalm.model.spec import RequestSpec
from tests.model.recorded_progress import RecordedProgress

_NAMES = 65536


def repeat(source: Path, out: Path, num_cells: int) -> None:
    """Write a file with ``num_cells`` cells by repeating those of ``source``, without holding it in memory."""
    cells = anndata.read_h5ad(source)
    x = sparse.csr_matrix(cells.X)
    # Keep all columns of var, because Ensembl ids match more genes than symbols do.
    anndata.AnnData(x[:1].copy(), var=cells.var.copy()).write_h5ad(out)
    times = -(-num_cells // x.shape[0])
    indptr = np.concatenate([[0], np.cumsum(np.tile(np.diff(x.indptr), times)[:num_cells])]).astype(np.int64)
    with h5py.File(out, "r+") as file:
        del file["X"], file["obs/_index"]
        matrix = file.create_group("X")
        shape = np.array([num_cells, x.shape[1]])
        matrix.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": shape})
        matrix["indptr"] = indptr
        chunks = (min(1 << 18, int(indptr[-1])),)
        data = matrix.create_dataset("data", (indptr[-1],), "f4", chunks=chunks, compression="lzf")
        indices = matrix.create_dataset("indices", (indptr[-1],), "i4", chunks=chunks, compression="lzf")
        for start in range(0, num_cells, x.shape[0]):
            first, last = indptr[start], indptr[min(start + x.shape[0], num_cells)]
            data[first:last], indices[first:last] = x.data[: last - first], x.indices[: last - first]
        text = h5py.string_dtype()
        names = file["obs"].create_dataset("_index", (num_cells,), text, chunks=(min(1 << 14, num_cells),))
        names.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        for start in range(0, num_cells, _NAMES):
            names[start : start + _NAMES] = [f"cell{n}" for n in range(start, min(num_cells, start + _NAMES))]


class MemoryWatch:
    """Records the unshared memory (MB) of this process and of its largest child every second, in a thread."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float, float]] = []  # seconds, driver, largest worker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me, begin = psutil.Process(), time.perf_counter()
        while not self._stop.wait(1.0):
            workers = [0.0]
            for child in me.children(recursive=True):
                try:
                    workers.append(child.memory_full_info().uss / 1e6)
                except psutil.Error:
                    continue
            self.samples.append((time.perf_counter() - begin, me.memory_full_info().uss / 1e6, max(workers)))

    def curve(self, points: int = 6) -> str:
        """Memory of driver/worker at evenly spaced times, without the first half minute (loading) of longer runs."""
        settled = [sample for sample in self.samples if sample[0] > min(30.0, self.samples[-1][0] / 3)]
        places = np.linspace(0, len(settled) - 1, min(points, len(settled))).astype(int)
        return "  ".join(f"{settled[i][0]:.0f}s {settled[i][1]:.0f}/{settled[i][2]:.0f}" for i in places)


def one_process(source: Path, folder: Path, bundle: Bundle) -> NDArray[np.float32]:
    """The result ``[cells, D]`` of ``scpalm embed``. Prints its rate."""
    engine = load(bundle)
    engine.session.warm_up()
    begin = time.perf_counter()
    process_file(source, folder / "single.h5ad", engine, RequestSpec(("embed",)), NoProgress())
    with h5py.File(folder / "single.h5ad") as file:
        values: NDArray[np.float32] = file["obsm/X_scpalm"][:]
    print(f"one process, all cores: {len(values) / (time.perf_counter() - begin):.0f} cells/s of {len(values)}")
    return values


def measure(source: Path, out: Path, bundle: Bundle, processes: int, expected: NDArray[np.float32]) -> None:
    """Embed one atlas and print a line of the table."""
    import zarr

    progress = RecordedProgress(lambda: print(f"\r{sum(progress.advanced)} cells", end="", file=sys.stderr))
    begin = time.perf_counter()
    with MemoryWatch() as memory:
        embed_atlas(source, out, bundle, RequestSpec(("embed",)), ClusterOptions(None, processes), progress)
    seconds = time.perf_counter() - begin
    values = zarr.open_array(str(out / "obsm" / "X_scpalm"), mode="r")
    size = len(expected)
    equal = all(
        np.array_equal(values[start : start + size], expected[: values.shape[0] - start])
        for start in range(0, values.shape[0], size)
    )
    workers = [sample[2] for sample in memory.samples]
    drivers = [sample[1] for sample in memory.samples]
    print(
        f"\r{values.shape[0]} cells, {processes} process(es): {values.shape[0] / seconds:.0f} cells/s with the start, "
        f"most MB driver {max(drivers):.0f} worker {max(workers):.0f}, identical: {equal}\n  MB driver/worker at "
        f"{memory.curve()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--source", type=Path)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    bundle = Bundle.load()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        source = options.source or folder / "sample.h5ad"
        if options.source is None:
            write_sample(source)
        atlas = folder / f"atlas-{options.cells}.h5ad"
        if not atlas.exists():
            repeat(source, atlas, options.cells)
        expected = one_process(source, folder, bundle)
        for processes in options.processes:
            measure(atlas, folder / f"out-{options.cells}-{processes}.zarr", bundle, processes, expected)


if __name__ == "__main__":
    main()
