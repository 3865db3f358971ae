"""The commands ``scpalm-train evaluate clustering``, ``transfer`` and ``robustness``: score embeddings of cells."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.training.cli.commands.evaluate.options import (
    BundleOption,
    Json,
    Keep,
    Label,
    Methods,
    Record,
    datasets_of,
    finish,
    named_methods,
    show_progress,
)
from scpalm.training.cli.console import command

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from scpalm.training.evaluation.common.dataset import Dataset
    from scpalm.training.evaluation.common.source import EmbeddingSource


@command
def clustering(
    *,
    files: list[Path],
    json_out: Json = None,
    label: Label = "cell_type",
    bundle: BundleOption = DEFAULT_BUNDLE,
    against: Annotated[
        list[Path] | None, typer.Option("--against", help="Another bundle to score on the same cells; may be repeated.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 10,
    methods: Methods = None,
    keep: Keep = None,
    extended: Annotated[
        bool, typer.Option("--extended", help="Also the best resolution and a logistic probe.")
    ] = False,
    batch_key: Annotated[
        str | None, typer.Option(help="Column of obs with batches: also iLISI, cLISI and graph connectivity.")
    ] = None,
    cells: Annotated[
        int | None, typer.Option(help="Score leave-one-out kNN on this many cells instead, drawn once per seed.", min=1)
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Write a UMAP of every method, by label and by cluster, into this folder.")
    ] = None,
    record: Record = False,
) -> None:
    """Compare Leiden clusters and kNN votes with labels, for the model and its baselines; prints a table."""
    from scpalm.model.bundle import Bundle
    from scpalm.model.errors import InputError
    from scpalm.training.evaluation.clustering.compare import ClusteringOptions, compare_clustering
    from scpalm.training.evaluation.clustering.few_cells import BASELINES, FewCellsOptions, compare_few_cells
    from scpalm.training.evaluation.clustering.picture import draw_umap
    from scpalm.training.evaluation.common.baselines import Baselines
    from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
    from scpalm.training.evaluation.common.other_bundle import OtherBundle
    from scpalm.training.evaluation.common.scvi_baseline import Scvi
    from scpalm.training.evaluation.common.table import CLUSTERING_COLUMNS, FEW_CELLS_COLUMNS

    if cells is not None and (extended or batch_key or pictures):
        raise InputError(
            "options-conflict",
            "--cells scores kNN alone.",
            hint="Leave out --extended, --batch-key and --pictures, or --cells.",
        )
    datasets = datasets_of(files, label, keep, batch_key)
    first = Bundle.load(bundle)
    models: list[EmbeddingSource] = [
        BundleEmbeddings(first),
        *(OtherBundle(Bundle.load(path), first) for path in against or []),
    ]
    if cells is not None:
        few = FewCellsOptions(cells, named_methods(methods), range(seeds))
        rows = compare_few_cells(datasets, [*models, Baselines(BASELINES)], few, progress=show_progress)
        finish(rows, FEW_CELLS_COLUMNS, json_out, bundle, record=record)
        return

    def draw(dataset: Dataset, method: str, array: NDArray[np.floating]) -> None:
        if pictures is not None:
            pictures.mkdir(parents=True, exist_ok=True)
            draw_umap(array, dataset, pictures / f"{dataset.name}-{method}.png", title=method)

    options = ClusteringOptions(named_methods(methods), range(seeds), extended)
    rows = compare_clustering(datasets, [*models, Baselines(), Scvi()], options, progress=show_progress, on_array=draw)
    finish(rows, CLUSTERING_COLUMNS, json_out, bundle, record=record)


@command
def transfer(
    *,
    files: list[Path],
    batch_key: Annotated[str, typer.Option(help="Column of obs with batches, technologies or donors.")],
    json_out: Json = None,
    label: Label = "cell_type",
    bundle: BundleOption = DEFAULT_BUNDLE,
    seed: Annotated[int, typer.Option(help="Seed of Harmony and scVI.")] = 0,
    methods: Methods = None,
    keep: Keep = None,
    record: Record = False,
) -> None:
    """Label each batch from all others by their nearest cells, for the model and joint baselines; prints a table."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
    from scpalm.training.evaluation.common.table import TRANSFER_COLUMNS
    from scpalm.training.evaluation.transfer.compare import TransferOptions, compare_transfer
    from scpalm.training.metrics.rows import record_rows

    datasets = datasets_of(files, label, keep, batch_key)
    options = TransferOptions(named_methods(methods), seed)
    rows = compare_transfer(datasets, BundleEmbeddings(Bundle.load(bundle)), options, progress=show_progress)
    finish(rows, TRANSFER_COLUMNS, json_out, bundle, record=False)
    if record:  # the card holds only the means over batches
        record_rows(bundle, [row for row in rows if "batch" not in row])


@command
def robustness(
    *,
    files: list[Path],
    json_out: Json = None,
    label: Label = "cell_type",
    bundle: BundleOption = DEFAULT_BUNDLE,
    seeds: Annotated[int, typer.Option(help="Number of seeds.", min=1)] = 3,
    genes: Annotated[int, typer.Option(help="Number of genes to remove.", min=1)] = 16,
    methods: Methods = None,
    keep: Keep = None,
    record: Record = False,
) -> None:
    """Measure how far cells move when counts or genes are missing, for the model and PCA; prints a table."""
    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
    from scpalm.training.evaluation.common.table import ROBUSTNESS_COLUMNS
    from scpalm.training.evaluation.robustness.compare import METHODS, RobustnessOptions, compare_robustness

    datasets = datasets_of(files, label, keep)
    options = RobustnessOptions(named_methods(methods) or METHODS, range(seeds), genes)
    rows = compare_robustness(datasets, BundleEmbeddings(Bundle.load(bundle)), options, progress=show_progress)
    finish(rows, ROBUSTNESS_COLUMNS, json_out, bundle, record=record)
