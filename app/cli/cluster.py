"""``scpalm embed --cluster``: the driver with a progress bar."""

from __future__ import annotations

from pathlib import Path

from scpalm.app.cli.progress import CellProgress
from scpalm.app.serving.runtime import MissingRuntimeError
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import InputError
from scpalm.model.genes.normalize import Declared


def embed_on_cluster(
    source: Path,
    out: Path,
    bundle: Path | None,
    layer: str | None,
    declared: Declared,
    address: str | None,
    processes: int | None,
) -> None:
    """See `scpalm.app.offline.cluster.driver.embed_atlas`. Raises MissingRuntimeError, and what that raises."""
    if not source.exists():
        raise InputError("no-such-file", f"There is no {source}.", mend="Name an .h5ad file or a zarr store.")
    try:
        from scpalm.app.offline.cluster.driver import embed_atlas
    except ModuleNotFoundError as error:
        raise MissingRuntimeError("Dask is not installed. Install it with: pip install 'scpalm[cluster]'") from error
    with CellProgress() as progress:
        embed_atlas(
            source,
            out,
            Bundle.load(bundle or DEFAULT_BUNDLE),
            address=address,
            processes=processes,
            layer=layer,
            declared=declared,
            on_start=progress.start,
            on_chunk=progress.advance,
        )
