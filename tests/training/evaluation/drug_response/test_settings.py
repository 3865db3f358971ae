"""New lines, new drugs, biomarkers and summed cells on small tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import scpalm.training.evaluation.drug_response.settings as judged
from scpalm.training.cli.main import app
from scpalm.training.evaluation.drug_response.settings import BIOMARKERS, Setting, biomarker_rows, biomarker_summary
from tests.training.drug_response.small import Small


def test_scores_ignore_what_was_not_measured_and_coverage_is_that_of_the_other_folds() -> None:
    random = np.random.default_rng(0)
    measured = random.normal(size=(60, 8))
    predicted = measured + random.normal(0, 0.5, measured.shape)
    measured[::3, 2] = np.nan
    fold = np.repeat(np.arange(60)[:, None] % 10, 8, axis=1)
    base = np.zeros_like(measured)
    (row,) = Setting("new lines", measured, base, {"ours": predicted}, fold).rows()
    known = np.isfinite(measured)
    assert row["pcc"] == pytest.approx(np.corrcoef(predicted[known], measured[known])[0, 1], abs=1e-5)
    assert 0.85 < float(row["coverage"]) < 0.95 and row["method"] == "ours"
    within = [np.corrcoef(predicted[known[:, d], d], measured[known[:, d], d])[0, 1] for d in range(8)]
    assert row["drug_pcc_median"] == pytest.approx(np.median(within), abs=1e-5)


def test_the_table_of_biomarkers_is_cited_and_effects_are_differences_of_means(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = pd.read_csv(BIOMARKERS)
    assert len(table) >= 15 and table.doi.str.startswith("10.").all() and table.reference.str.len().min() > 10
    assert set(table.expected) == {"sensitive", "resistant"} and not table.duplicated(["gene", "drug"]).any()

    own = tmp_path / "pairs.csv"
    own.write_text("gene,drug,expected\nA,aspirin,resistant\nZ,aspirin,sensitive\n")
    monkeypatch.setattr(judged, "BIOMARKERS", own)
    drug = [one.name for one in small.tables.drugs].index("aspirin")
    calls = small.tables.mutation[:, small.tables.mutation_names.index("A")]
    measured = np.random.default_rng(1).normal(size=(40, 20))
    measured[calls == 1, drug] += 5
    half = np.where(np.arange(20) == drug, measured / 2, 0)
    rows = biomarker_rows(small.tables, measured, {"drug_mean": measured, "half": half, "all": measured})
    assert [row["method"] for row in rows] == ["half", "all"] and [row["kept"] for row in rows] == [0.5, 1.0]
    assert rows[0]["measured"] == pytest.approx(
        measured[calls == 1, drug].mean() - measured[calls == 0, drug].mean(), abs=1e-3
    )
    assert rows[0]["seen"] == 1 and biomarker_summary(rows, "half")[1].endswith("above half in 1")


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output


def test_the_commands_train_judge_and_score_summed_cells(small: Small, tmp_path: Path) -> None:
    bundle = shutil.copytree(small.bundle.path, tmp_path / "bundle")
    output = run("drug-response-head", small.folder, "--bundle", bundle, "--leave-out", "ACH-000003", "--settings")
    assert "39 lines" in output
    card = json.loads((bundle / "manifest.json").read_text())["drug_response"]
    datasets = {row["dataset"] for row in card["evaluation"]}
    assert {"drug response, published, test", "drug response, new lines", "drug response, new drugs"} <= datasets
    assert "drug response, new lines and drugs" in datasets
    methods = {row["method"] for row in card["evaluation"] if row["dataset"] == "drug response, new lines"}
    assert {"kernel head", "kernel ridge (genes)", "elastic net (genes)", "drug_mean"} <= methods

    profile = np.exp2(small.tables.expression[3]) - 1
    counts = np.random.default_rng(0).poisson(np.tile(profile, (30, 1)) * 3).astype(np.float32)
    cells = anndata.AnnData(counts, obs=pd.DataFrame({"cell_type": ["one"] * 30}))
    cells.var_names = small.tables.genes
    cells.write_h5ad(tmp_path / "cells.h5ad")
    words = ("summed-cells", small.folder, tmp_path / "cells.h5ad", "--bundle", bundle, "--lines", "one=ACH-000003")
    run("evaluate", *words, "--json", tmp_path / "rows.json")
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["method"] for row in rows] == ["summed cells", "own bulk profile, same genes"]
    assert rows[0]["r"] == pytest.approx(rows[1]["r"], abs=0.2)
    trained = CliRunner().invoke(app, [str(word) for word in ("evaluate", *words[:-1], "one=ACH-000004")])
    assert trained.exit_code != 0 and "training lines" in trained.output
