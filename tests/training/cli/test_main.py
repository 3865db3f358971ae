from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner, Result

from scpalm.model.bundle import Bundle
from scpalm.model.genes.vocabulary import Vocabulary
from scpalm.training.cli.main import app
from scpalm.training.runs.run import Run
from tests.training.same import assert_same_state
from tests.training.tiny import tiny_counts, tiny_vocabulary, write_h5ad, write_two_files

SIZES = ("num_tokens=8", "width=16", "num_layers=1", "num_heads=2", "num_codes=16", "gene_width=16", "code_width=4")
STAGE1 = ("batch_size=16", "warmup_steps=2", "checkpoint_every=3", "evaluate_every=3")
STAGE2 = (*STAGE1, "clusters=3", "queue=64", "queue_start=32", "refit_every=3", "replicas=2")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def settings(*pairs: str) -> list[str]:
    return [word for pair in pairs for word in ("--set", pair)]


def ok(*words: object) -> Result:
    result = run(*words)
    assert result.exit_code == 0, result.output
    return result


def one_line(result: Result, status: int = 1) -> str:
    """The line of the error. Checks the exit status, and that there is no traceback."""
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def genes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("genes") / "genes.parquet"
    tiny_vocabulary().save(path)
    return path


@pytest.fixture(scope="module")
def corpus_dir(tmp_path_factory: pytest.TempPathFactory, genes: Path) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    files = write_two_files(folder / "files")
    result = ok("corpus", folder / "corpus", *files, "--genes", genes, "--held-out", 0.2, "--keep", "tissue=blood")
    lines = result.stdout.splitlines()
    assert lines[1].split() == ["first.h5ad", "200", "120", "120", "0", "0", "0", "counts"]
    assert lines[2].split() == ["second.h5ad", "0", "82", "80", "0", "100", "0", "-"]
    assert lines[3].startswith("200 cells, 120 genes")
    return folder / "corpus"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory, corpus_dir: Path) -> Path:
    """A run whose stage 1 has six steps."""
    path = tmp_path_factory.mktemp("cli-run") / "run"
    result = ok("pathways", corpus_dir, "--out", path, "--steps", 6, "--device", "cpu", *settings(*SIZES, *STAGE1))
    assert "pathways" in result.stderr and "6/6" in result.stderr
    return path


def test_from_files_to_a_bundle(run_dir: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(run_dir, tmp_path / "run"))
    ok("cells", run_dir, "--steps", 6, "--device", "cpu", *settings(*STAGE2, "decoder_sees_cell=prepend"))
    config = json.loads((run_dir / "config.json").read_text())
    assert config["network"]["decoder_sees_cell"] == "prepend"
    assert (config["stage1"]["steps"], config["stage2"]["steps"], config["stage2"]["queue"]) == (6, 6, 64)
    lines = [json.loads(line) for line in (run_dir / "curves.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [
        *((stage, step) for stage in ("stage1", "stage2") for step in (3, 6)),
        ("views", 6),
        ("decoder", 6),
    ]
    assert all({"mse", "held_out_mse", "gene_mean_mse", "pca_mse"} <= set(line) for line in lines[:-2])
    assert {"mse", "held_out_mse", "contrastive"} <= set(lines[-2])
    assert {"mse", "held_out_mse"} <= set(lines[-1])
    card = tmp_path / "card.json"
    card.write_text('{"training_data": "two made-up files", "notes": "a test"}')
    script = tmp_path / "model.pt"
    result = ok(
        "export", run_dir, "--out", tmp_path / "bundle", "--name", "mine", "--card", card, "--torchscript", script
    )
    assert result.stdout.startswith("ONNX Runtime and PyTorch agree: ")
    bundle = Bundle.load(tmp_path / "bundle")
    assert (bundle.name, bundle.manifest["training_data"], bundle.manifest["notes"]) == (
        "mine",
        "two made-up files",
        "a test",
    )
    assert torch.jit.load(str(script)) is not None
    assert "already holds a stage 2" in one_line(run("cells", run_dir))
    assert "exists already" in one_line(run("export", run_dir, "--out", tmp_path / "bundle"))


def test_one_command_from_files_to_a_bundle(genes: Path, tmp_path: Path) -> None:
    files = write_two_files(tmp_path / "files")
    sets = tmp_path / "sets.gmt"
    names = "\t".join(Vocabulary.load(genes).symbols[:40])
    sets.write_text(f"FIRST\t-\t{names}\n")
    words = ("all", *files, "--out", tmp_path / "mine", "--steps", 3, "--genes", genes, "--name", "mine")
    options = [*settings(*SIZES, *STAGE1), *(word for pair in STAGE2 for word in ("--set-cells", pair))]
    first = ok(*words, *options, "--device", "cpu")
    assert "1/5 corpus" in first.stderr and "4/5 export" in first.stderr
    assert "outputs: embed, pathways, impute" in first.stdout and "drug response (give --drug-response)" in first.stdout
    bundle = Bundle.load(tmp_path / "mine" / "bundle")
    assert bundle.name == "mine" and (tmp_path / "mine" / "run" / "decoder.pt").exists()
    manifest = (bundle.path / "manifest.json").read_bytes()
    again = ok(*words, *options, "--device", "cpu", "--gene-sets", sets)
    assert again.stderr.count("done before") == 4 and "steps/s" not in again.stderr
    assert "pathways.json" in Bundle.load(bundle.path).manifest["files"]
    assert manifest != (bundle.path / "manifest.json").read_bytes()


def test_an_interrupted_chain_continues_at_its_checkpoint(genes: Path, tmp_path: Path) -> None:
    files = write_two_files(tmp_path / "files")
    words = ("all", *files, "--out", tmp_path / "mine", "--genes", genes, "--device", "cpu", *settings(*SIZES, *STAGE1))
    one_line(run(*words, "--steps", 3, "--set-cells", "clusters=no"), 2)
    assert (tmp_path / "mine" / "run" / "stage1.pt").exists() and not (tmp_path / "mine" / "bundle").exists()
    rest = ok(*words, "--steps", 3, *(word for pair in STAGE2 for word in ("--set-cells", pair)))
    assert rest.stderr.count("done before") == 2 and (tmp_path / "mine" / "bundle" / "manifest.json").exists()


def test_a_resumed_command_equals_an_uninterrupted_one(corpus_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    # A run of six steps that was killed after its first checkpoint.
    words = ("pathways", corpus_dir, "--out", tmp_path / "run", "--device", "cpu")
    ok(*words, "--steps", 3, *settings(*SIZES, *STAGE1, "quantizer_start=0.0"))
    half = torch.load(tmp_path / "run" / "stage1.pt", weights_only=True)
    whole = tmp_path / "whole"
    ok(*words[:3], whole, *words[4:], "--steps", 3, *settings(*SIZES, *STAGE1, "quantizer_start=0.0"))
    assert_same_state(torch.load(whole / "stage1.pt", weights_only=True), half)
    ok(*words, "--resume")  # finished already: nothing changes
    assert_same_state(torch.load(tmp_path / "run" / "stage1.pt", weights_only=True), half)
    ok(*words, "--steps", 6, "--resume")
    assert Run(tmp_path / "run").load_checkpoint("stage1")["step"] == 6


def test_a_run_that_was_killed_before_its_first_checkpoint_can_be_resumed(corpus_dir: Path, tmp_path: Path) -> None:
    words = ("pathways", corpus_dir, "--out", tmp_path / "run", "--device", "cpu")
    ok(*words, "--steps", 3, *settings(*SIZES, *STAGE1))
    expected = torch.load(tmp_path / "run" / "stage1.pt", weights_only=True)
    (tmp_path / "run" / "stage1.pt").unlink()
    ok(*words, "--resume")
    assert_same_state(torch.load(tmp_path / "run" / "stage1.pt", weights_only=True), expected)


def test_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "hgnc.txt").write_text(
        "symbol\tstatus\tlocus_group\tensembl_gene_id\tprev_symbol\talias_symbol\tdate_symbol_changed\n"
        "CD3E\tApproved\tprotein-coding gene\tENSG00000000003\t\tT3E\t\n"
    )
    (tmp_path / "gencode.csv").write_text("ENSG00000000003.1,CD3E\nENSG00000000004.1,FRESH\n")
    result = ok("vocabulary", tmp_path / "hgnc.txt", tmp_path / "gencode.csv", "-o", tmp_path / "genes.parquet")
    assert result.stdout.startswith("2 genes")
    assert Vocabulary.load(tmp_path / "genes.parquet").symbols == ["CD3E", "FRESH"]
    assert "hgnc" in one_line(run("vocabulary", tmp_path / "no-hgnc", tmp_path / "gencode.csv", "-o", tmp_path / "g"))


class TestErrors:
    def test_corpus_errors(self, tmp_path: Path, genes: Path, corpus_dir: Path) -> None:
        good = write_h5ad(tmp_path / "good.h5ad", tiny_counts(30, seed=1))
        counts = tiny_counts(30, seed=1)
        counts[3, 4] = np.nan
        bad = write_h5ad(tmp_path / "bad.h5ad", counts)
        no_file = tmp_path / "none.h5ad"
        text = tmp_path / "text.h5ad"
        text.write_text("no h5ad")
        out = tmp_path / "out"
        assert "exists already" in one_line(run("corpus", corpus_dir, good, "--genes", genes))
        line = one_line(run("corpus", out, good, bad, "--genes", genes))
        assert "bad.h5ad" in line and "GENE4" in line and "bad-3" in line
        assert "none.h5ad" in one_line(run("corpus", out, no_file, "--genes", genes))
        assert "text.h5ad" in one_line(run("corpus", out, text, "--genes", genes))
        assert "none.parquet" in one_line(run("corpus", out, good, "--genes", tmp_path / "none.parquet"))
        assert "column=value" in one_line(run("corpus", out, good, "--genes", genes, "--keep", "tissue"), 2)
        assert "No cell is left" in one_line(run("corpus", out, good, "--genes", genes, "--never", good))
        assert not out.exists()

    def test_usage_errors(self, corpus_dir: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        for words in (
            ("pathways",),
            ("pathways", corpus_dir),
            ("pathways", corpus_dir, "--out", out, "--steps", "many"),
            ("corpus", out, tmp_path / "x.h5ad", "--held-out", 2),
            ("nothing",),
        ):
            result = run(*words)
            assert result.exit_code == 2
            assert "Traceback" not in result.output
        assert "Unknown option 'stepz'" in one_line(run("pathways", corpus_dir, "--out", out, "--set", "stepz=3"), 2)
        assert "steps must be at least 1" in one_line(run("pathways", corpus_dir, "--out", out, "--steps", 0), 2)
        assert "key=value" in one_line(run("pathways", corpus_dir, "--out", out, "--set", "steps"), 2)
        assert not out.exists()

    def test_stage_errors(self, corpus_dir: Path, run_dir: Path, tmp_path: Path) -> None:
        out = tmp_path / "run"
        assert "is not a corpus" in one_line(run("pathways", tmp_path, "--out", out))
        assert "Unknown preset 'huge'" in one_line(run("pathways", corpus_dir, "--out", out, "--preset", "huge"), 2)
        assert "--device" in one_line(run("pathways", corpus_dir, "--out", tmp_path / "b", "--device", "tpu"), 2)
        assert "already holds a run" in one_line(run("pathways", corpus_dir, "--out", run_dir))
        assert "is not a run" in one_line(run("pathways", corpus_dir, "--out", out, "--resume"))
        line = one_line(run("pathways", corpus_dir, "--out", run_dir, "--resume", "--set", "lr=0.1"))
        assert "--set cannot change a run that is resumed" in line
        assert "is not a run" in one_line(run("cells", out))
        assert "Unknown option 'stepz'" in one_line(run("cells", run_dir, "--set", "stepz=3"), 2)
        assert "is not a run" in one_line(run("export", out, "--out", tmp_path / "bundle"))

    def test_checkpoint_errors(self, corpus_dir: Path, tmp_path: Path) -> None:
        words = ("pathways", corpus_dir, "--out", tmp_path / "run", "--device", "cpu")
        ok(*words, "--steps", 1, *settings(*SIZES, *STAGE1))
        (tmp_path / "run" / "stage1.pt").write_bytes(b"damaged")
        assert "stage1.pt cannot be read" in one_line(run(*words, "--resume"))
        assert "stage1.pt cannot be read" in one_line(run("cells", tmp_path / "run"))
        (tmp_path / "run" / "config.json").write_text('{"network": {"num_genes": 120, "unheard-of": 1}}')
        assert "has no valid 'network'" in one_line(run(*words, "--resume"))
