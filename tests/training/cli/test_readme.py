"""The training and evaluation commands of README.md, run on small data with few steps."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

import anndata
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from scpalm.model.bundle import Bundle
from scpalm.model.engine import load
from scpalm.training.cli.main import app
from tests.docs.readme import lines_of
from tests.training.bundles import Exported
from tests.training.drug_response.small import Small
from tests.training.tiny import tiny_counts, tiny_vocabulary, write_h5ad

CELLS = 90
# What makes a command fast: few steps and methods, small networks. The command itself is the README's.
SMALL = {
    "all": "--steps 3 --device cpu --set num_tokens=8 --set width=16 --set num_layers=1 --set num_heads=2 "
    "--set num_codes=16 --set gene_width=16 --set code_width=4 --set batch_size=16 --set warmup_steps=2 "
    "--set-cells batch_size=16 --set-cells warmup_steps=2 --set-cells clusters=3 --set-cells queue=64 "
    "--set-cells queue_start=32 --set-cells refit_every=3 --set-cells replicas=2",
    "clustering": "--methods embedding,pca50",
    "transfer": "--methods embedding",
    "integration": "--methods pca50,embedding",
    "imputation": "--methods scpalm,gene_mean --seeds 1",
    "pathways": "--permutations 1",
    "annotation": "--map 'T cell=T cell' --map 'B CELL=B cell' --map 'my own type=my own type'",
}

# These need a head or a reference, so they score the bundle of the training command.
_AFTER_TRAINING = ("drug-response", "annotation")


def run(words: list[str]) -> Result:
    return CliRunner().invoke(app, words)


@pytest.fixture
def here(tiny_export: Exported, small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with small data under the names of the README."""
    monkeypatch.chdir(tmp_path)
    kinds = [["T cell", "B CELL", "my own type"][i % 3] for i in range(CELLS)]
    obs = {"cell_type": kinds, "batch": [["one", "two"][i // 45] for i in range(CELLS)]}
    for name in ("LABELLED.h5ad", "BATCHES.h5ad", "CELLS/a.h5ad", "CELLS/b.h5ad"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_h5ad(tmp_path / name, tiny_counts(CELLS, seed=len(name) + ord(name[6])), obs=obs)
    (tmp_path / "SETS.gmt").write_text("SET\tx\t" + "\t".join(f"GENE{i}" for i in range(0, 60, 3)) + "\n")
    shutil.copytree(small.folder, tmp_path / "DRUG_TABLES")
    shutil.copytree(tiny_export.corpus, tmp_path / "CORPUS")
    tiny_vocabulary().save(tmp_path / "genes.parquet")
    return tmp_path


def task_of(line: str) -> str:
    return shlex.split(line)[2]


@pytest.mark.parametrize("line", [line for line in lines_of("evaluation") if task_of(line) not in _AFTER_TRAINING])
def test_evaluation(
    line: str, here: Path, tiny_export: Exported, small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The libraries of scIB compile for a minute; their scores have their own test.
    monkeypatch.setattr(
        "scpalm.training.evaluation.integration.compare.scib_scores",
        lambda arrays, labels, batches: pd.DataFrame({"Total": 0.5}, index=list(arrays)),
    )
    words = shlex.split(line)[1:]
    task = task_of(line)
    more = shlex.split(SMALL.get(task, "")) if "--cells" not in words else ["--methods", "embedding,pca10"]
    result = run([*words, *more, "--bundle", str(tiny_export.bundle)])
    assert result.exit_code == 0, result.output
    assert "| dataset" in result.stdout


def test_training_from_files_to_a_served_bundle(here: Path) -> None:
    train, serve = lines_of("training")
    words = shlex.split(train.replace("CELLS/*.h5ad", "CELLS/a.h5ad CELLS/b.h5ad"))[1:]
    result = run([*words, *shlex.split(SMALL["all"]), "--genes", "genes.parquet"])
    assert result.exit_code == 0, result.output
    assert "left out:" not in result.stdout, result.output
    variable, _, command = serve.partition(" ")
    assert command == "scpalm serve"
    bundle = Bundle.load(here / variable.removeprefix("SCPALM_BUNDLE="))
    assert set(bundle.manifest["tasks"]) >= {"embed", "pathways", "impute", "ic50"}
    engine = load(bundle.path)
    adata = anndata.read_h5ad("LABELLED.h5ad")
    engine.annotate(adata)
    assert set(adata.obs["scpalm_label"].cat.categories) >= {"B cell", "T cell", "my own type"}
    for line in (line for line in lines_of("evaluation") if task_of(line) in _AFTER_TRAINING):
        scored = run([*shlex.split(line)[1:], *shlex.split(SMALL.get(task_of(line), "")), "--bundle", str(bundle.path)])
        assert scored.exit_code == 0 and "| dataset" in scored.stdout, scored.output
