"""``scpalm-train adapt``: a bundle whose embedding is adapted to a user's cells."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.console import CellBar, command


@command
def adapt(
    *,
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The model to start from: `mini`, or a folder.")],
    files: Annotated[list[Path], typer.Argument(metavar="FILE.h5ad ...", help="Your cells, with raw counts.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the new bundle.")],
    label_key: Annotated[
        str, typer.Option("--label-key", help="Column of obs with cell types; cells without one are fine.")
    ] = "",
    batch_key: Annotated[
        str, typer.Option("--batch-key", help="Column of obs with batches; default: each file is one.")
    ] = "",
    name: Annotated[str, typer.Option(help="Name of the new model, as in ?model=; default: BUNDLE-adapted.")] = "",
    held_out: Annotated[float, typer.Option(help="Share of cells kept for the comparison.", min=0.05, max=0.5)] = 0.2,
    force: Annotated[bool, typer.Option("--force", help="Write the bundle even if it is worse.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the split and the fit.")] = 0,
) -> None:
    """Adapt the embedding of a bundle to your cells, in seconds to minutes; writes nothing if that makes it worse.

    Example: scpalm-train adapt mini donor1.h5ad donor2.h5ad --label-key cell_type --out mine
    """
    from scpalm.model.adapting import AdaptOptions, adapt_bundle
    from scpalm.model.bundle import Bundle
    from scpalm.model.engine import open_runtime

    start = Bundle.load(DEFAULT_BUNDLE if str(bundle) == DEFAULT_BUNDLE.name and not bundle.exists() else bundle)
    options = AdaptOptions(label_key, batch_key, name, held_out, force, seed)
    with CellBar() as bar:
        scores = adapt_bundle(start, open_runtime(start), files, out, options, bar)
    typer.echo(f"{'held-out cells':44} {'before':>8} {'after':>8}")
    for score in scores:
        typer.echo(f"{score.name:44} {score.before:8.3f} {score.after:8.3f}{'  worse' if score.worse else ''}")
    typer.echo(f"-> {out}. Serve it: SCPALM_BUNDLE={out}, or put it into SCPALM_MODELS_DIR and ask for ?model=NAME")
