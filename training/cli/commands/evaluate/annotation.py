"""``scpalm-train evaluate annotation``: cell types by the bundle's reference, or labels transferred from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    pairs_of,
    show_progress,
)
from scpalm.training.cli.console import command


@command
def annotation(
    *,
    queries: Annotated[list[Path], typer.Argument(metavar="QUERY.h5ad ...", help="Labelled cells to annotate.")],
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Labelled cells to annotate from. Default: the bundle's own reference."),
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(help="Corpus of the bundle's reference, for baselines on genes. Without --reference only."),
    ] = None,
    json_out: Json = None,
    label: Label = "cell_type",
    bundle: BundleOption = DEFAULT_BUNDLE,
    label_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map", help="query=reference: two names of the same type; without --reference, label=broad type."
        ),
    ] = None,
    methods: Methods = None,
    keep: Keep = None,
    record: Record = False,
) -> None:
    """Score the bundle's cell types, or labels transferred from a file, and its baselines; prints a table."""
    if reference is None:
        _named_types(queries, corpus, bundle, label_map, methods, (json_out, label, keep), record=record)
        return
    from scpalm.model.bundle import Bundle
    from scpalm.training.evaluation.clustering.annotation import METHODS, compare_annotation
    from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
    from scpalm.training.evaluation.common.table import ANNOTATION_COLUMNS

    rows = compare_annotation(
        datasets_of([reference], label, keep)[0],
        datasets_of(queries, label, keep),
        BundleEmbeddings(Bundle.load(bundle)),
        label_map=pairs_of(label_map),
        methods=methods.split(",") if methods else METHODS,
        progress=show_progress,
    )
    finish(rows, ANNOTATION_COLUMNS, json_out, bundle, record=record)


def _named_types(
    queries: list[Path],
    corpus: Path | None,
    bundle: Path,
    label_map: list[str] | None,
    methods: str | None,
    reading: tuple[Path | None, str, list[str] | None],
    *,
    record: bool,
) -> None:
    from scpalm.model.bundle import Bundle
    from scpalm.training.annotation.cells import ReferenceOptions
    from scpalm.training.cell_types.table import evaluation_labels
    from scpalm.training.corpus.reader import Corpus
    from scpalm.training.evaluation.clustering.named_types import METHODS, compare_named_types, reference_genes
    from scpalm.training.evaluation.common.table import ANNOTATION_COLUMNS

    json_out, label, keep = reading
    loaded = Bundle.load(bundle)
    files = datasets_of(queries, label, keep)
    accepted = {name: dict(labels) for name, labels in evaluation_labels().items()}
    for text, broad in pairs_of(label_map).items():
        for file in files:
            accepted.setdefault(file.name, {})[text] = frozenset({broad})
    genes = None
    if corpus is not None:
        made_with = loaded.manifest.get("reference", {}).get("options", {})
        genes = reference_genes(Corpus(corpus), ReferenceOptions(**made_with))
    chosen = methods.split(",") if methods else METHODS
    rows = compare_named_types(files, accepted, loaded, genes, chosen, show_progress)
    finish(rows, ANNOTATION_COLUMNS, json_out, bundle, record=record)
