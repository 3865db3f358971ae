"""Command-line options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.genes.values.declared import Declared

InArgument = Annotated[
    Path,
    typer.Argument(
        metavar="IN.h5ad",
        help="The cells: .h5ad, 10x's .h5 or matrix folder, .h5mu (its rna), or a zarr store; - for stdin.",
    ),
]
OutOption = Annotated[
    Path,
    typer.Option(
        "-o",
        "--out",
        metavar="OUT.h5ad",
        help="Output: .h5ad, a copy of the file with the results; .csv, .tsv, .parquet or .npy, the results alone. "
        "- or -.csv: to stdout.",
    ),
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", help="Folder of the model. Default: the packaged model.")
]
LayerOption = Annotated[
    str | None,
    typer.Option(
        help="Matrix to use: X, raw for raw.X, or the name of a layer. Default: the one that holds the counts."
    ),
]
InputOption = Annotated[Declared, typer.Option("--input", help="What the values are; auto detects it.")]
TotalOption = Annotated[
    float | None,
    typer.Option("--total", help="What a whole cell sums to before the logarithm, e.g. 1e4 (CP10K), 1e6 (TPM)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print what was read, matched and written as JSON on stdout.")]
