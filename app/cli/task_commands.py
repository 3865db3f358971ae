"""What the commands embed, impute, pathways and ic50 have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from scpalm.app.cli.progress import CellProgress
from scpalm.app.offline.files import process_file
from scpalm.app.serving.runtime import open_runtime
from scpalm.app.tasks.plans import Asked, names_in
from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle
from scpalm.model.errors import InputError


def run_task(
    source: Path,
    out: Path,
    bundle: Path | None,
    layer: str | None,
    kind: Literal["auto", "counts", "log"],
    task: str,
    *,
    genes: str = "",
    scale: Literal["log", "counts"] = "log",
    summary: bool = False,
    drugs: tuple[str, ...] = (),
) -> None:
    """One task for every cell of a file on this machine, with a progress bar; ``out`` is whole or absent.

    Options as in `scpalm.app.tasks.plans.Asked`. Raises InputError, BundleError and OSError.
    """
    if not source.is_file():
        raise InputError("no-such-file", f"{source} is not a file.", mend="Name an .h5ad file.")
    loaded = Bundle.load(bundle or DEFAULT_BUNDLE)
    asked = Asked((task,), names_in(genes), scale, summary, drugs)
    session = open_runtime(loaded)
    with CellProgress() as progress:
        process_file(
            source,
            out,
            loaded,
            session,
            lambda target, extras, num_cells: asked.tasks(loaded, session.info, target, extras, num_cells),
            extras=asked.extras,
            layer=layer,
            declared=kind,
            on_start=progress.start,
            on_chunk=progress.advance,
        )
