from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.session import DrugResponseSession
from scpalm.training.cli.main import app
from tests.training.drug_response.small import Small

QUICK = ("free_epochs=6", "encoder_epochs=6", "line_groups=3", "drug_groups=3", "graph_width=16")

TESTED = ("drug response, published, test", "h_C+genes")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def train(small: Small, bundle: Path, out: Path, *words: object) -> Result:
    settings = [word for pair in QUICK for word in ("--set", pair)]
    return run("drug-response", small.folder, "--bundle", bundle, "--out", out, *settings, *words)


@pytest.fixture(scope="module")
def shipped(small: Small, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path, Path]:
    folder = tmp_path_factory.mktemp("shipped")
    bundle = shutil.copytree(small.bundle.path, folder / "bundle")
    unknown = folder / "unknown"
    assert train(small, bundle, unknown, "--seeds", 2, "--no-test", "--split", "drug").exit_code == 0
    words = ("--seeds", 2, "--settings", "expression,mutation,methylation", "--export", "--unknown-drugs", unknown)
    result = train(small, bundle, folder / "run", *words, "--json", folder / "rows.json", "--figures", folder / "docs")
    assert result.exit_code == 0, result.output
    return result, bundle, folder


def test_one_command_trains_scores_draws_and_exports(shipped: tuple[Result, Path, Path]) -> None:
    result, bundle, folder = shipped
    rows = json.loads((folder / "rows.json").read_text())
    test = {row["method"] for row in rows if row["dataset"] == "drug response, published, test"}
    own = {"h_C+genes", "h_C+genes + mutation", "h_C+genes + mutation + methylation"}
    references = {"drug_mean", "drug_mean + line_effect", "kernel_ridge (genes)", "published DeepCDR"}
    assert test == own | {f"{name}, 2 members" for name in own} | references | {"published scFoundation"}
    assert {row["dataset"].split(", ")[1] for row in rows} == {"published", "pair-dedup"}
    assert all(0 <= row["coverage"] <= 1 for row in rows if "coverage" in row)
    assert "against published scFoundation" in result.stdout
    assert {path.name for path in (folder / "docs").iterdir()} == {
        "drug_response_groups.png",
        "drug_response_scatter.png",
    }
    assert DrugResponseSession(Bundle.load(bundle)).settings == ("expression", "mutation", "methylation")
    card = Bundle.load(bundle).manifest["drug_response"]
    assert "non-commercial" in card["terms"] and card["training"]["split"] == "published"
    in_card = {(row["dataset"], row["method"]): row for row in card["evaluation"]}
    per_seed = [row["pcc"] for row in rows if (row["dataset"], row["method"]) == TESTED]
    assert in_card[TESTED]["seeds"] == 2 and abs(in_card[TESTED]["pcc"] - np.mean(per_seed)) < 1e-4


def test_the_shipped_head_scores_as_its_ensemble_did(shipped: tuple[Result, Path, Path], small: Small) -> None:
    _, bundle, folder = shipped
    out = folder / "evaluated.json"
    result = run("evaluate", "drug-response", small.folder, "--bundle", bundle, "--json", out)
    assert result.exit_code == 0, result.output
    rows = {(row["dataset"], row["method"]): row for row in json.loads(out.read_text())}
    before = {(row["dataset"], row["method"]): row for row in json.loads((folder / "rows.json").read_text())}
    data = "drug response, published, test"
    for setting, method in (("expression", "h_C+genes"), ("methylation", "h_C+genes + mutation + methylation")):
        found, wanted = rows[data, f"shipped head, {setting}"], before[data, f"{method}, 2 members"]
        for metric in ("pcc", "rmse", "residual_pcc", "coverage"):
            np.testing.assert_allclose(found[metric], wanted[metric], atol=5e-3)
    assert rows[data, "drug_mean"] == before[data, "drug_mean"]


def test_a_resumed_run_keeps_finished_members_and_equals_an_uninterrupted_run(small: Small, tmp_path: Path) -> None:
    bundle, part, whole = small.bundle.path, tmp_path / "part", tmp_path / "whole"
    assert train(small, bundle, part, "--seeds", 1, "--no-test").exit_code == 0
    member = part / "h_C_genes-expression" / "seed-0" / "weights.safetensors"
    before = member.stat().st_mtime_ns
    assert train(small, bundle, part, "--seeds", 2, "--resume", "--no-test").exit_code == 0
    assert member.stat().st_mtime_ns == before
    assert train(small, bundle, whole, "--seeds", 2, "--no-test").exit_code == 0
    for seed in (0, 1):
        one, two = (np.load(f / "h_C_genes-expression" / f"seed-{seed}" / "predicted.npz") for f in (part, whole))
        for name in ("validation", "calibration", "test"):
            np.testing.assert_array_equal(one[name], two[name])
    assert not np.array_equal(
        *(np.load(whole / "h_C_genes-expression" / f"seed-{s}" / "predicted.npz")["test"] for s in (0, 1))
    )


def test_without_test_no_test_row_is_scored(small: Small, tmp_path: Path) -> None:
    result = train(small, small.bundle.path, tmp_path / "run", "--seeds", 1, "--no-test", "--split", "drug")
    assert result.exit_code == 0, result.output
    assert "drug response, drug, validation" in result.stdout
    assert ", test" not in result.stdout


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--split", "random"), 2, "Unknown split 'random'"),
        (("--inputs", "genes,tokens"), 2, "unknown 'tokens'"),
        (("--settings", "protein"), 2, "unknown 'protein'"),
        (("--set", "speed=3"), 2, "Unknown option 'speed'"),
        (("--set", "lr=0"), 2, "lr must be above 0"),
        (("--resume",), 1, "no run to resume"),
        (("--export",), 2, "--unknown-drugs"),
    ],
)
def test_wrong_use_is_one_line(small: Small, tmp_path: Path, words: tuple[str, ...], status: int, said: str) -> None:
    result = train(small, small.bundle.path, tmp_path / "run", *words)
    assert result.exit_code == status, result.output
    assert said in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_run_is_not_continued_with_other_options(small: Small, tmp_path: Path) -> None:
    assert train(small, small.bundle.path, tmp_path, "--seeds", 1, "--no-test").exit_code == 0
    again = train(small, small.bundle.path, tmp_path, "--seeds", 1)
    assert again.exit_code == 1 and "--resume" in again.stderr
    other = train(small, small.bundle.path, tmp_path, "--seeds", 1, "--resume", "--split", "drug")
    assert other.exit_code == 1 and "split=published" in other.stderr


def test_a_bundle_without_a_head_is_refused(small: Small) -> None:
    result = run("evaluate", "drug-response", small.folder, "--bundle", small.bundle.path)
    assert result.exit_code == 1 and "drug_response" in result.stderr
