"""``scpalm-train reference``: the cell types that a bundle knows by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from scpalm.training.cli.console import command


@command
def reference(
    *,
    corpus_dir: Annotated[Path, typer.Argument(metavar="CORPUS")],
    bundle: Annotated[Path, typer.Option("--bundle", help="The bundle to add the reference to.")],
    max_cells: Annotated[int, typer.Option(help="Cells to store, for distances.", min=16)] = 1500,
    max_of_label: Annotated[int, typer.Option(help="Most cells of a label and data set.", min=1)] = 25,
    seed: Annotated[int, typer.Option(help="Seed of the choice of cells.")] = 0,
) -> None:
    """Add a reference of cell types to a bundle: labelled and simulated cells of a corpus, calibrated."""
    from scpalm.training.annotation.build import add_reference
    from scpalm.training.annotation.cells import ReferenceOptions
    from scpalm.training.corpus.reader import Corpus

    def show(text: str) -> None:
        if sys.stderr.isatty():
            typer.echo(f"  {text}", err=True)

    entry = add_reference(Corpus(corpus_dir), bundle, ReferenceOptions(max_cells, max_of_label, seed), show)
    held_out = entry["held_out"]
    typer.echo(f"{'left out':36} {'cells':>6} {'accuracy':>9} {'unknown':>8}")
    for source, row in held_out["sets"].items():
        typer.echo(f"{source[:36]:36} {row['cells']:6,} {row['accuracy']:9.3f} {row['unknown_share']:8.3f}")
    typer.echo(
        f"mean accuracy {held_out['accuracy']:.3f}, mean probability {held_out['mean_probability']:.3f}, calibration "
        f"error {held_out['calibration_error']:.3f}, unknown {held_out['unknown_share']:.3f}; of cells of other types "
        f"{held_out['unknown_share_of_other_types'] or 0:.3f} unknown"
    )
    typer.echo(f"{entry['cells']:,} cells of {entry['labels']} types -> {bundle}")
