"""Send the rows of an atlas to a Dask cluster, and record those that are done."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from distributed import Client, KilledWorker, LocalCluster, as_completed

from scpalm.app.offline.cluster.atlas import Atlas, ClusterError
from scpalm.app.offline.cluster.store import AtlasStore
from scpalm.app.offline.cluster.tasks import EmbedPlugin, embed_rows
from scpalm.model.bundle import Bundle
from scpalm.model.progress import Progress
from scpalm.model.spec import RequestSpec

# A few seconds on one core. A worker that dies loses at most this much; it is also the chunk size of the result.
TASK_ROWS = 4096
_TASKS_PER_THREAD = 2  # submitted ahead; bounded, so that the scheduler's memory does not grow with the atlas
_CONNECT_SECONDS = 60.0  # timeout for the scheduler, and for its first worker


@dataclass(frozen=True)
class ClusterOptions:
    """Where to compute an atlas.

    Attributes:
        address: address of a Dask scheduler; None for processes on this machine.
        processes: number of processes on this machine; None for one per core.
        task_rows: cells per task.
    """

    address: str | None = None
    processes: int | None = None
    task_rows: int = TASK_ROWS


def embed_atlas(
    source: Path, out: Path, bundle: Bundle, spec: RequestSpec, options: ClusterOptions, progress: Progress
) -> None:
    """Embed an h5ad file or zarr store into the zarr store ``out``. An interrupted run is continued.

    Args:
        source: the cells.
        out: the zarr store to write.
        bundle: the model.
        spec: how to read the source (its layer and type of input).
        options: where to compute.
        progress: receives the number of cells done.

    Raises:
        InputError: the cells are invalid.
        ClusterError: the cluster failed, or the run was stopped.
        OSError: reading or writing failed.
    """
    atlas = Atlas.of(source, bundle, spec, options.task_rows)
    with AtlasStore(out, atlas) as store:
        progress.start(atlas.num_cells, atlas.coverage)
        progress.tell(atlas.note())
        progress.advance(store.rows_done)
        missing = [task for task in atlas.tasks() if task not in store.done]
        try:
            with _sigterm_as_interrupt():
                if missing:
                    plugin = EmbedPlugin(atlas, store.folder.resolve(), local=options.address is None)
                    with _client(options, len(missing)) as client:
                        _run(client, plugin, missing, store, progress)
                store.finish()
        except KeyboardInterrupt:
            raise ClusterError(
                f"Stopped. {store.rows_done:,} of {atlas.num_cells:,} cells are stored in {store.folder}. "
                "Run the same command to continue."
            ) from None


def _run(
    client: Client,
    plugin: EmbedPlugin,
    missing: list[tuple[int, int]],
    store: AtlasStore,
    progress: Progress,
) -> None:
    client.register_plugin(plugin)
    left = iter(missing)
    running = as_completed()
    in_flight = 0

    def submit() -> Iterator[None]:
        while in_flight < _TASKS_PER_THREAD * max(1, sum(client.nthreads().values())):
            task = next(left, None)
            if task is None:
                return
            running.add(client.submit(embed_rows, plugin.name, *task, key=f"{plugin.name}-{task[0]}", pure=False))
            yield

    try:
        in_flight += sum(1 for _ in submit())
        for future in running:
            in_flight -= 1
            start, stop = future.result()
            store.commit(start, stop)
            progress.advance(stop - start)
            for _ in submit():
                in_flight += 1
    except KilledWorker as error:
        raise ClusterError(
            f"Workers died {error.allowed_failures + 1} times on the same cells, most likely out of memory. "
            f"Use fewer --processes. {store.rows_done:,} cells are stored in {store.folder}."
        ) from None
    finally:
        client.cancel(list(running.futures), force=True)
        client.unregister_worker_plugin(plugin.name)


@contextmanager
def _client(options: ClusterOptions, num_tasks: int) -> Iterator[Client]:
    address = options.address
    # Dask logs every closed connection. Our own errors tell users what they need to know.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        num_processes = min(options.processes or cores, num_tasks)
        with (
            LocalCluster(
                n_workers=num_processes,
                threads_per_worker=max(1, cores // num_processes),
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout=_CONNECT_SECONDS)
    except (OSError, TimeoutError, ValueError):
        raise ClusterError(f"No Dask scheduler answers at {address}. Start one with `dask scheduler`.") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_CONNECT_SECONDS)
        except TimeoutError:
            raise ClusterError(
                f"The scheduler at {address} has no workers. Start them with `dask worker {address} --nthreads 1`, "
                "one per device."
            ) from None
        yield client


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, for example from a batch system, like Ctrl-C."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
