"""The command ``scpalm models``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scpalm.app.cli.options import BundleOption

if TYPE_CHECKING:
    from scpalm.model.bundle import Bundle


def models(
    bundle: BundleOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole model card as JSON.")] = False,
) -> None:
    """Summarise a model: what it was trained on, what it computes, and how well.

    Example: scpalm models --json
    """
    from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle

    loaded = Bundle.load(bundle or DEFAULT_BUNDLE)
    typer.echo(json.dumps(loaded.manifest, indent=2, ensure_ascii=False) if as_json else "\n".join(summary(loaded)))


def summary(bundle: Bundle) -> list[str]:
    """The main facts of a bundle, one a line."""
    card = bundle.manifest
    training = card.get("training_data")
    rows = [row for row in card.get("evaluation", []) if isinstance(row, dict)]
    num_bytes = sum(int(entry.get("bytes", 0)) for entry in card["files"].values())
    made = str(card.get("versions", {}).get("scpalm", "?"))
    lines = [
        f"model      {bundle.name} {bundle.version} (preset {card.get('preset', '?')}), {num_bytes / 1e6:.1f} MB",
        f"path       {bundle.path}",
        f"checksum   {bundle.identity[2]}",
        f"exported   {card.get('created', '?')} by scpalm {made}",
        f"genes      {len(bundle.vocabulary):,}",
        f"outputs    {', '.join(card.get('tasks', ()))}",
        f"trained    {_trained(training)}",
    ]
    if reference := card.get("reference"):
        lines.append(
            f"cell types {reference.get('labels', '?')} in the reference of {reference.get('cells', 0):,} cells"
        )
    clustering = [row for row in rows if "knn_accuracy" in row and "ari" in row and "task" not in row]
    lines += ["", *_scores(clustering)] if clustering else []
    return [*lines, "", f"{len(rows)} rows of evaluation in all, licences and checksums: scpalm models --json"]


def _trained(training: object) -> str:
    if not isinstance(training, list):
        return str(training or "not recorded")
    files = [entry for entry in training if isinstance(entry, Mapping)]
    real, simulated = (
        [int(entry.get("cells", 0)) for entry in files if bool(entry.get("simulated")) == kind]
        for kind in (False, True)
    )
    text = f"{sum(real):,} cells of {len(real)} data sets"
    return text + (f", {sum(simulated):,} simulated cells of {len(simulated)} tables of profiles" if simulated else "")


def _scores(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Agreement with labels by data set; baselines are fitted to the set, other methods have not seen it."""
    lines = [f"{'data set':32} {'cells':>6}  {'method':20} {'kNN acc.':>8} {'ARI':>6}"]
    for row in rows:
        method = str(row["method"]) + ("" if row.get("zero_shot") else " (fitted)")
        scores = f"{row['knn_accuracy']:8.3f} {row['ari']:6.3f}"
        lines.append(f"{str(row['dataset'])[:32]:32} {row['cells']:6,}  {method[:20]:20} {scores}")
    return lines
