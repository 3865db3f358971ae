"""Rows of an evaluation: one number per metric for a data set, method and seed."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from scpalm.model.output.whole_file import replaced_when_whole

Row = dict[str, str | int | float | bool]


def write_rows(path: Path | str, rows: Sequence[Row]) -> None:
    """Write rows as a JSON list, one row a line; the file appears whole or not at all. Raises ValueError for NaN."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # NaN is not valid JSON: fail here rather than in the reader's parser.
    lines = ",\n".join(json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    with replaced_when_whole(path) as partial:
        partial.write_text(f"[\n{lines}\n]\n" if rows else "[]\n", encoding="utf-8")


METRICS = (
    *("ari", "nmi", "silhouette", "knn_accuracy", "knn_macro_f1", "macro_f1", "probe_accuracy", "probe_macro_f1"),
    *("best_ari", "best_nmi", "best_resolution", "ilisi", "clisi", "graph_connectivity"),
    *("rmse", "mae", "gene_pearson", "cell_pearson", "poisson_deviance"),
    *("transfer_accuracy", "thinning_cosine", "neighbor_cosine", "gene_removal_move"),
    *("hits", "null_hits_mean", "null_hits_sd", "accuracy", "unknown_share"),
    *("stage1_seconds", "stage2_seconds", "stage1_megabytes", "stage2_megabytes"),
)


def summarise(rows: Sequence[Row]) -> list[Row]:
    """One row per data set and method: ``<metric>`` is the mean over seeds, ``<metric>_sd`` the sample sd."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row.get("task", "")), str(row["dataset"]), str(row["method"])), []).append(row)
    out: list[Row] = []
    for (_, dataset, method), group in groups.items():
        summary: Row = {"dataset": dataset, "method": method, "seeds": len(group)}
        for key in ("task", "zero_shot", "width", "cells", "genes", "reference"):
            if key in group[0]:
                summary[key] = group[0][key]
        for metric in METRICS:
            values = [float(row[metric]) for row in group if metric in row]
            if values:
                summary[metric] = round(statistics.fmean(values), 4)
                summary[f"{metric}_sd"] = round(statistics.stdev(values), 4) if len(values) > 1 else 0.0
        out.append(summary)
    return out


def record_rows(bundle: Path, rows: Sequence[Row]) -> None:
    """Write the summary of ``rows`` into a bundle's manifest, replacing earlier ones of the same task and data set.

    Rows without a ``task`` belong to the clustering task.
    """
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    fresh = summarise(rows)
    scored = {_task_and_dataset(row) for row in fresh}
    kept = [row for row in manifest.get("evaluation", []) if _task_and_dataset(row) not in scored]
    manifest["evaluation"] = kept + fresh
    write_json(path, manifest)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Replace a JSON file in one step."""
    with replaced_when_whole(path) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _task_and_dataset(row: Mapping[str, object]) -> tuple[object, object]:
    return row.get("task", "clustering"), row["dataset"]
