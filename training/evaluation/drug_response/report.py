"""Rows of a run's members, references and ensembles, and the groups in which each is better."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from scpalm.training.drug_response.data.splits import Split, make_split
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.experiment import DrugRun, Outcome, Variant
from scpalm.training.drug_response.interval import Interval, calibrate
from scpalm.training.evaluation.drug_response.metrics import coverage, pcc_by_group, scores, wins
from scpalm.training.evaluation.drug_response.references import drug_means, references
from scpalm.training.metrics.rows import Row

COLUMNS = ("pcc", "spearman", "rmse", "residual_pcc", "drug_pcc", "line_pcc", "type_pcc", "coverage")


def score_rows(tables: Tables, split: Split, predicted: NDArray[np.floating], rows: NDArray[np.int64]) -> Row:
    """Metrics of predictions for ``rows``; the drug means are those of the training rows."""
    return scores(
        predicted,
        tables.ln_ic50[rows],
        drug_means(tables, split.train)[tables.drug_of[rows]],
        drug=tables.drug_of[rows],
        line=tables.line_of[rows],
        cancer_type=tables.types[tables.line_of[rows]],
    )


def member_rows(tables: Tables, split_name: str, outcomes: Sequence[Outcome], part: str) -> Iterator[Row]:
    """One row per member, on the ``validation`` or ``test`` rows of its split."""
    for outcome in outcomes:
        split = make_split(tables, split_name, outcome.seed)
        row = score_rows(tables, split, outcome.predicted[part], getattr(split, part))
        yield _named(split_name, outcome.variant.name, outcome.seed, part) | row


def reference_rows(tables: Tables, split_name: str, seeds: Sequence[int]) -> Iterator[Row]:
    """References on the test rows: once for fixed test rows, otherwise for each seed."""
    fixed = split_name in ("published", "pair-dedup")
    for seed in seeds[:1] if fixed else seeds:
        split = make_split(tables, split_name, seed)
        for name, predicted in references(tables, split):
            yield _named(split_name, name, seed, "test") | score_rows(tables, split, predicted, split.test)


def ensemble_row(tables: Tables, split_name: str, outcomes: Sequence[Outcome]) -> Row:
    """Mean of the members of one variant on fixed test rows, with the coverage of the calibrated interval."""
    split = make_split(tables, split_name, outcomes[0].seed)
    mean, interval = ensemble(tables, split, outcomes)
    lower, upper = interval.around(np.stack([outcome.predicted["test"] for outcome in outcomes]))
    row = _named(split_name, f"{outcomes[0].variant.name}, {len(outcomes)} members", -1, "test")
    measured = tables.ln_ic50[split.test]
    return (
        row
        | score_rows(tables, split, mean, split.test)
        | {"coverage": round(coverage(lower, upper, measured), 5), "level": interval.level}
        | {"interval_width": round(float(np.mean(upper - lower)), 4)}
    )


def ensemble(tables: Tables, split: Split, outcomes: Sequence[Outcome]) -> tuple[NDArray[np.float32], Interval]:
    """Mean on the test rows, and the interval from the calibration rows, which no member was trained on."""
    calibration = np.stack([outcome.predicted["calibration"] for outcome in outcomes])
    interval = calibrate(calibration, tables.ln_ic50[split.calibration])
    return np.mean([outcome.predicted["test"] for outcome in outcomes], axis=0), interval


def comparison(tables: Tables, split: Split, predicted: NDArray[np.floating], theirs: NDArray[np.floating]) -> str:
    """Describe in how many groups our PCC is higher than that of the published predictions."""
    measured, parts = tables.ln_ic50[split.test], []
    for name, group in group_names(tables, split.test).items():
        higher, compared = wins(pcc_by_group(predicted, measured, group), pcc_by_group(theirs, measured, group))
        parts.append(f"{higher} of {compared} {name}s")
    return ", ".join(parts)


def group_names(tables: Tables, rows: NDArray[np.int64]) -> dict[str, NDArray[np.generic]]:
    """Cancer type, line and drug of each row."""
    line = tables.line_of[rows]
    return {"type": tables.types[line], "line": tables.lines[line], "drug": tables.drug_of[rows]}


def _named(split: str, method: str, seed: int, part: str) -> Row:
    return {"dataset": f"drug response, {split}, {part}", "method": method, "seed": seed}


def run_rows(
    run: DrugRun, tables: Tables, split_name: str, variants: Sequence[Variant], seeds: Sequence[int], *, test: bool
) -> list[Row]:
    """Score every member on its validation rows. ``test`` adds test rows, references and ensembles.

    Ensembles need test rows that all seeds share. A ``published`` run is also scored on ``pair-dedup``, which has the
    same training rows.
    """
    outcomes = {variant: [run.member(variant, seed) for seed in seeds] for variant in variants}
    members = {variant: [one for one in several if one is not None] for variant, several in outcomes.items()}
    rows = [row for several in members.values() for row in member_rows(tables, split_name, several, "validation")]
    if not test:
        return rows
    rows += reference_rows(tables, split_name, list(seeds))
    for several in members.values():
        rows += member_rows(tables, split_name, several, "test")
        if split_name in ("published", "pair-dedup") and several:
            rows.append(ensemble_row(tables, split_name, several))
    if split_name == "published":
        rows += reference_rows(tables, "pair-dedup", list(seeds))
        for several in members.values():
            rows += [_without_repeats(tables, outcome) for outcome in several]
    return rows


def _without_repeats(tables: Tables, outcome: Outcome) -> Row:
    split, fewer = (make_split(tables, name, outcome.seed) for name in ("published", "pair-dedup"))
    predicted = outcome.predicted["test"][np.isin(split.test, fewer.test)]
    return _named("pair-dedup", outcome.variant.name, outcome.seed, "test") | score_rows(
        tables, fewer, predicted, fewer.test
    )


def win_lines(run: DrugRun, tables: Tables, variants: Sequence[Variant]) -> Iterator[str]:
    """For each variant: in how many groups its first member and its ensemble beat scFoundation by PCC."""
    for variant in variants:
        outcomes = run.members(variant)
        if not outcomes:
            continue
        split = make_split(tables, "published", outcomes[0].seed)
        theirs = tables.published_scfoundation[split.test]
        if not np.isfinite(theirs).all():
            return
        one = comparison(tables, split, outcomes[0].predicted["test"], theirs)
        mean = np.mean([outcome.predicted["test"] for outcome in outcomes], axis=0)
        yield f"{variant.name} against published scFoundation: seed {outcomes[0].seed} higher in {one}"
        yield f"{variant.name}, {len(outcomes)} members: higher in {comparison(tables, split, mean, theirs)}"


def summary(rows: Sequence[Row]) -> list[Row]:
    """One row per data set and method: ``<metric>`` is the mean over seeds, ``<metric>_sd`` the sample sd."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row["dataset"]), str(row["method"])), []).append(row)
    out: list[Row] = []
    for (dataset, method), group in groups.items():
        line: Row = {"dataset": dataset, "method": method, "seeds": len(group)}
        for metric in (*COLUMNS, "level", "interval_width"):
            values = [float(row[metric]) for row in group if metric in row]
            if values:
                line[metric] = round(float(np.mean(values)), 4)
            if len(values) > 1:
                line[f"{metric}_sd"] = round(float(np.std(values, ddof=1)), 4)
        out.append(line)
    return out
