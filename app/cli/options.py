"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.genes.normalize import Declared

InArgument = Annotated[Path, typer.Argument(metavar="IN.h5ad", help="The cells.")]
OutOption = Annotated[
    Path, typer.Option("-o", "--out", metavar="OUT.h5ad", help="The same file with the results added.")
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help="Directory of the model. Default: the one in the package.")
]
LayerOption = Annotated[str | None, typer.Option(help="Which matrix: raw for raw.X, or a layer. Default: X.")]
InputOption = Annotated[Declared, typer.Option("--input", help="What the values are; auto detects it.")]
