"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.genes.normalize import Declared

InArgument = Annotated[
    Path,
    typer.Argument(
        metavar="IN.h5ad", help="The cells: .h5ad, 10x's .h5 or matrix folder, .h5mu (its rna), or a zarr store."
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "-o",
        "--out",
        metavar="OUT.h5ad",
        help="Output: .h5ad, a copy of the file with the results; .csv, .tsv, .parquet or .npy, the results alone.",
    ),
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help="Folder of the model. Default: the packaged model.")
]
LayerOption = Annotated[
    str | None, typer.Option(help="Matrix to use: raw for raw.X, or the name of a layer. Default: X.")
]
InputOption = Annotated[Declared, typer.Option("--input", help="Type of the values; auto detects it.")]
