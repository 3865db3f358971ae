"""The command ``scpalm-train evaluate integration``: batches taken out in several ways, by the metrics of scIB."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.commands.evaluate.options import (
    BundleOption,
    Json,
    Keep,
    Methods,
    Record,
    datasets_of,
    finish,
    named_methods,
    show_progress,
)
from scpalm.training.cli.console import command


@command
def integration(
    *,
    files: list[Path],
    batch_key: Annotated[str, typer.Option(help="Column of obs with batches, technologies or donors.")],
    label_key: Annotated[
        str, typer.Option("--label-key", "--label", help="Column of obs with the labels.")
    ] = "cell_type",
    effect_key: Annotated[
        str | None, typer.Option(help="Column of obs with a condition that should stay, such as a treatment.")
    ] = None,
    adapted: Annotated[
        Path | None, typer.Option(help="A bundle adapted to other cells of the same kind: one more row.")
    ] = None,
    json_out: Json = None,
    bundle: BundleOption = DEFAULT_BUNDLE,
    seed: Annotated[int, typer.Option(help="Seed of Harmony and scVI.")] = 0,
    methods: Methods = None,
    keep: Keep = None,
    record: Record = False,
) -> None:
    """Compare PCA, Harmony, scVI, the model's embeddings and integrate; prints a table with times."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
    from scpalm.training.evaluation.common.table import INTEGRATION_COLUMNS
    from scpalm.training.evaluation.integration.compare import IntegrationOptions, compare_integration
    from scpalm.training.metrics.rows import Row

    model = BundleEmbeddings(Bundle.load(bundle))
    other = None if adapted is None else BundleEmbeddings(Bundle.load(adapted))
    datasets = datasets_of(files, label_key, keep, batch_key)
    effects = datasets_of(files, label_key, keep, effect_key) if effect_key is not None else [None] * len(datasets)
    rows: list[Row] = []
    for dataset, effect in zip(datasets, effects, strict=True):
        options = IntegrationOptions(named_methods(methods), seed, None if effect is None else effect.batches)
        rows += compare_integration(dataset, model, options, adapted=other, progress=show_progress)
    finish(rows, INTEGRATION_COLUMNS, json_out, bundle, record=record)
