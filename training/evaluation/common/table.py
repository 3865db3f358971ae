"""Format rows of an evaluation as a table of means and standard deviations over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scpalm.training.evaluation.common.source import MODEL_METHODS
from scpalm.training.metrics.rows import Row

CLUSTERING_COLUMNS = (
    *("ari", "nmi", "silhouette", "knn_accuracy", "knn_macro_f1", "num_clusters"),
    *("best_ari", "best_nmi", "probe_accuracy", "probe_macro_f1", "ilisi", "clisi", "graph_connectivity"),
)
FEW_CELLS_COLUMNS = ("knn_accuracy",)
TRANSFER_COLUMNS = ("transfer_accuracy",)
INTEGRATION_COLUMNS = ("total", "batch", "bio", "ari", "nmi", "ilisi", "effect_accuracy", "seconds")
ROBUSTNESS_COLUMNS = ("thinning_cosine", "neighbor_cosine", "gene_removal_move")
ANNOTATION_COLUMNS = (
    *("accuracy", "macro_f1", "macro_recall", "nearest_accuracy", "nearest_macro_f1"),
    *("unknown_share", "unknown_share_elsewhere"),
)
PATHWAY_COLUMNS = ("hits", "null_hits_mean", "null_hits_sd", "codes_with_hits")
IMPUTATION_COLUMNS = (
    *("rmse", "mae", "gene_pearson", "cell_pearson", "poisson_deviance"),
    *("ari", "nmi", "knn_accuracy"),
)
# A model that is not zero-shot has seen the set in training, but is not fitted to it alone.
_PRETRAINED = {*MODEL_METHODS, "scpalm", "scpalm_mean"} - {"untrained"}


def table(rows: Sequence[Row], columns: Sequence[str] = CLUSTERING_COLUMNS) -> str:
    """Markdown table, one line per data set and method in order of appearance.

    Numbers are ``mean ± sd`` over seeds (sample sd; left out for a single seed or if all seeds agree). The last columns
    give the width, and whether the method is zero-shot, trained on the set among others, or fitted to it. Metrics that
    no row has are left out.
    """
    present = [column for column in columns if any(column in row for row in rows)]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["dataset"]), str(row["method"])), []).append(row)
    lines = [["dataset", "method", *present, "width", "claim"]]
    for (dataset, method), group in groups.items():
        numbers = [_cell([float(row[column]) for row in group if column in row], column) for column in present]
        lines.append([dataset, method, *numbers, str(group[0].get("width", "")), claim(group[0])])
    notes = [f"{row['dataset']}, {row['method']}: {row['note']}." for row in rows if row.get("note")]
    return "\n".join([_aligned(lines), *(["", *dict.fromkeys(notes)] if notes else [])])


def claim(row: Row) -> str:
    """How a method relates to the cells it is scored on; "" if the row does not say."""
    if "zero_shot" not in row:
        return ""
    if row["zero_shot"]:
        return "zero-shot"
    method = str(row["method"]).rpartition(":")[2]  # of another bundle: its name comes first
    return "trained on the set" if method in _PRETRAINED else "fitted to the set"


def _cell(values: Sequence[float], column: str) -> str:
    if not values:
        return ""
    digits = 1 if column.startswith("num_") else 3
    mean = f"{np.mean(values):.{digits}f}"
    if max(values) == min(values):
        return mean
    return f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
    text = [f"| {' | '.join(line)} |" for line in padded]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])
