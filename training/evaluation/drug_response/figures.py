"""Figures 4 and 5 of the paper: PCC by line, type and drug against scFoundation's, and the scatter of the best type."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scpalm.training.drug_response.data.splits import make_split
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.experiment import DrugRun, Variant
from scpalm.training.evaluation.drug_response.metrics import pcc, pcc_by_group, wins
from scpalm.training.evaluation.drug_response.report import group_names
from scpalm.training.runs.run import RunError

OURS, THEIRS = "#1f77b4", "#7f7f7f"


def draw_figures(run: DrugRun, tables: Tables, variant: Variant, folder: Path) -> list[Path]:
    """Write ``drug_response_groups.png`` and ``drug_response_scatter.png`` for the mean of a variant's members.

    Raises RunError when the run has no member, another split than the published one, or the tables lack scFoundation's
    predictions.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    outcomes = run.members(variant)
    if not outcomes or run.record()["split"] != "published":
        raise RunError(f"Figures need members of '{variant.name}' on the published split.")
    split = make_split(tables, "published", outcomes[0].seed)
    measured, theirs = tables.ln_ic50[split.test], tables.published_scfoundation[split.test]
    if not np.isfinite(theirs).all():
        raise RunError("Figures need scFoundation's published predictions (pub_pred_scfoundation).")
    ours = np.mean([outcome.predicted["test"] for outcome in outcomes], axis=0)
    folder.mkdir(parents=True, exist_ok=True)
    label = f"scPaLM {variant.name}, mean of {len(outcomes)} members"

    figure, axes = plt.subplots(1, 3, figsize=(10, 3.5), constrained_layout=True)
    groups = group_names(tables, split.test)
    for axis, (name, group) in zip(axes, groups.items(), strict=True):
        left, right = pcc_by_group(theirs, measured, group), pcc_by_group(ours, measured, group)
        both = [key for key in left if not np.isnan(left[key]) and not np.isnan(right[key])]
        higher, compared = wins(right, left)
        x, y = np.array([left[key] for key in both]), np.array([right[key] for key in both])
        low = float(min(x.min(), y.min())) - 0.02
        axis.plot([low, 1], [low, 1], color="black", linewidth=0.7)
        axis.scatter(x, y, s=10, color=OURS, alpha=0.6, linewidths=0)
        axis.set(title=f"by {name}: higher in {higher} of {compared}", xlim=(low, 1.01), ylim=(low, 1.01))
        axis.set(xlabel="PCC, published scFoundation", ylabel="PCC, scPaLM" if name == "type" else "")
    figure.suptitle(f"{label}; {len(measured):,} published test rows", fontsize=9)
    paths = [folder / "drug_response_groups.png", folder / "drug_response_scatter.png"]
    figure.savefig(paths[0], dpi=80)
    plt.close(figure)

    by_type = pcc_by_group(ours, measured, groups["type"])
    best = max(by_type, key=lambda name: by_type[name])
    chosen = list(dict.fromkeys([best, "LGG"])) if "LGG" in by_type else [best]
    figure, axes = plt.subplots(1, 2 * len(chosen), figsize=(3.2 * 2 * len(chosen), 3.2), constrained_layout=True)
    panels = [(name, who) for name in chosen for who in ("scFoundation", "scPaLM")]
    for axis, (name, who) in zip(axes, panels, strict=True):
        rows = groups["type"] == name
        predicted = (ours if who == "scPaLM" else theirs)[rows]
        axis.scatter(measured[rows], predicted, s=10, color=OURS if who == "scPaLM" else THEIRS, linewidths=0)
        ends = [float(measured[rows].min()), float(measured[rows].max())]
        axis.plot(ends, ends, color="black", linewidth=0.7)
        axis.set_title(f"{who}, {name} (n {rows.sum()}): PCC {pcc(predicted, measured[rows]):.3f}", fontsize=9)
        axis.set(xlabel="measured ln IC50 (uM)", ylabel="predicted")
    figure.savefig(paths[1], dpi=80)
    plt.close(figure)
    return paths
