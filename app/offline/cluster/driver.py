"""Hands the rows of an atlas to a Dask cluster and notes those that are done."""

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

# Some seconds of a core: what is lost with a worker, and what a file of the result holds.
TASK_ROWS = 4096
_AHEAD = 2  # tasks a thread that wait at the scheduler: its memory must not grow with the atlas
_PATIENCE = 60.0  # seconds for a scheduler to answer, and for its first worker


@dataclass(frozen=True)
class ClusterOptions:
    """Where an atlas is computed.

    Attributes:
        address: of a Dask scheduler; None for processes on this machine.
        processes: on this machine; None for as many as it has cores. task_rows: cells of one task.
    """

    address: str | None = None
    processes: int | None = None
    task_rows: int = TASK_ROWS


def embed_atlas(
    source: Path, out: Path, bundle: Bundle, spec: RequestSpec, options: ClusterOptions, progress: Progress
) -> None:
    """Embed an h5ad file or zarr store into the zarr store ``out``; an interrupted run is continued.

    ``spec`` says how to read the source. Raises InputError for the cells, ClusterError for the cluster and when
    stopped, OSError for the disk.
    """
    atlas = Atlas.of(source, bundle, spec, options.task_rows)
    with AtlasStore(out, atlas) as store:
        progress.start(atlas.num_cells, atlas.coverage)
        progress.advance(store.rows_done)
        missing = [task for task in atlas.tasks() if task not in store.done]
        try:
            with _stopped_like_ctrl_c():
                if missing:
                    plugin = EmbedPlugin(atlas, store.folder.resolve(), local=options.address is None)
                    with _client(options, len(missing)) as client:
                        _run(client, plugin, missing, store, progress)
                store.finish()
        except KeyboardInterrupt:
            raise ClusterError(
                f"Stopped. {store.rows_done:,} of {atlas.num_cells:,} cells are kept in {store.folder}; "
                "the same command goes on from there."
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
        while in_flight < _AHEAD * max(1, sum(client.nthreads().values())):
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
            f"Workers died {error.allowed_failures + 1} times on the same cells; most often for want of memory. "
            f"Use fewer --processes. {store.rows_done:,} cells are kept in {store.folder}."
        ) from None
    finally:
        client.cancel(list(running.futures), force=True)
        client.unregister_worker_plugin(plugin.name)


@contextmanager
def _client(options: ClusterOptions, num_tasks: int) -> Iterator[Client]:
    address = options.address
    # What the user must know is in our own errors; Dask tells of every connection that closes.
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if address is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        number = min(options.processes or cores, num_tasks)
        with (
            LocalCluster(
                n_workers=number,
                threads_per_worker=max(1, cores // number),
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = Client(address, timeout=_PATIENCE)
    except (OSError, TimeoutError, ValueError):
        raise ClusterError(f"No Dask scheduler answers at {address}. Start one with `dask scheduler`.") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError:
            raise ClusterError(
                f"The scheduler at {address} has no workers. Start them with `dask worker {address} --nthreads 1`, "
                "one a device."
            ) from None
        yield client


@contextmanager
def _stopped_like_ctrl_c() -> Iterator[None]:
    """SIGTERM (of a batch system, say) ends the run in order, too."""

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
