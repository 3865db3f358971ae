"""``scpalm-train evaluate all`` and the options of ``clustering`` that it uses."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from scpalm.training.cli.main import app
from tests.training.bundles import Exported
from tests.training.tiny import tiny_counts, write_h5ad

CELLS = 90


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    kinds = [["a", "b", "c"][i % 3] for i in range(CELLS)]
    batches = [["one", "two"][i // 45] for i in range(CELLS)]
    obs = {"kind": kinds, "donor": batches, "alone": ["x"] * CELLS}
    return write_h5ad(tmp_path_factory.mktemp("all") / "labelled.h5ad", tiny_counts(CELLS, seed=7), obs=obs)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["evaluate", *(str(word) for word in words)])


def test_one_command_writes_tables_page_and_figures(
    tiny_export: Exported, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sets.gmt").write_text("SET\tx\t" + "\t".join(f"GENE{i}" for i in range(0, 60, 3)) + "\n")
    words = (labelled, "--out", tmp_path / "out", "--bundle", tiny_export.bundle, "--label", "kind", "--seeds", 1)
    more = ("--imputation-seeds", 1, "--corpus", tiny_export.corpus, "--gene-sets", tmp_path / "sets.gmt")
    # The tiny corpus has no label with 20 cells for the heatmap of codes.
    monkeypatch.setattr(
        "scpalm.training.evaluation.pathways.cells.label_shares", lambda codes, labels, num: (["a"], np.ones((1, num)))
    )
    # The metrics of scIB have their own test; their libraries compile for a minute.
    monkeypatch.setattr(
        "scpalm.training.evaluation.integration.compare.scib_scores",
        lambda arrays, labels, batches: pd.DataFrame({"Total": 0.5}, index=list(arrays)),
    )
    # scVI and Harmony have their own tests; here they are left out as if they were not installed.
    monkeypatch.setitem(sys.modules, "scvi", None)
    monkeypatch.setitem(sys.modules, "harmonypy", None)
    result = run("all", *words, *more, "--reference", labelled, "--batch-key", "donor")
    assert result.exit_code == 0, result.output
    out = tmp_path / "out"
    tasks = {path.name.removesuffix(".rows.json") for path in out.glob("*.rows.json")}
    assert tasks == {
        *("clustering", "few_cells", "transfer", "integration", "robustness"),
        *("imputation", "pathways", "annotation"),
    }
    rows = json.loads((out / "clustering.rows.json").read_text())
    own = {"embedding", "basis", "h_C", "mean_tokens", "concat_tokens", "readout", "untrained"}
    assert own | {"hvg2000", "pca50"} <= {row["method"] for row in rows}
    assert all({"ilisi", "clisi", "graph_connectivity", "best_ari", "probe_accuracy"} <= row.keys() for row in rows)
    assert (out / "labelled-h_C.png").stat().st_size > 1000 and (out / "codes.png").exists()
    few = json.loads((out / "few_cells.rows.json").read_text())
    assert {row["method"] for row in few} == {"embedding", "basis", "h_C", "hvg2000", "pca10", "pca50"}
    assert {row["dataset"] for row in json.loads((out / "transfer.rows.json").read_text())} == {
        "labelled",
        "labelled: one",
        "labelled: two",
    }
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") == len(list(out.glob("*.png")))
    assert all(f"<th>{name}</th>" in page for name in ("ilisi", "transfer_accuracy", "thinning_cosine"))
    # A second call computes nothing.
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*.rows.json")}
    again = run("all", *words, *more, "--reference", labelled, "--batch-key", "donor")
    assert again.exit_code == 0 and {path: path.stat().st_mtime_ns for path in stamps} == stamps


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("clustering", "--label", "kind", "--batch-key", "alone"), "--batch-key"),
        (("clustering", "--label", "kind", "--batch-key", "nothing"), "no column 'nothing'"),
        (("all", "--label", "kind", "--gene-sets", "x.gmt"), "--corpus"),
        (("clustering", "--label", "alone"), "--label"),
        (("clustering", "--label", "kind", "--cells", "60", "--extended"), "--extended"),
        (("clustering", "--label", "kind", "--cells", "600"), "90 labelled cells"),
    ],
)
def test_wrong_use_is_one_line(
    tiny_export: Exported, labelled: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    out = ("--out", tmp_path / "out") if words[0] == "all" else ("--seeds", 1)
    result = run(words[0], labelled, *words[1:], *out, "--bundle", tiny_export.bundle)
    assert result.exit_code == 1 and said in result.stderr, result.output
    assert len(result.stderr.strip().splitlines()) == 1 or words[0] == "all"


def test_two_bundles_are_scored_on_the_same_cells(tiny_export: Exported, labelled: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_export.bundle, tmp_path / "other"))
    words = ("clustering", labelled, "--label", "kind", "--seeds", 1, "--methods", "h_C,other:h_C")
    rows = tmp_path / "rows.json"
    result = run(*words, "--bundle", tiny_export.bundle, "--against", other, "--json", rows)
    assert result.exit_code == 0, result.output
    first, second = json.loads(rows.read_text())
    assert (first.pop("method"), second.pop("method")) == ("h_C", "other:h_C") and first == second
