from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from scpalm.model.errors import InputError
from scpalm.training.cli.main import app
from scpalm.training.corpus.reader import Corpus
from scpalm.training.evaluation.ablation.cells import Cells
from scpalm.training.evaluation.ablation.train import METHODS, AblationConfig, Scoring, run_ablation, train_variant
from scpalm.training.evaluation.ablation.variants import VARIANTS, chosen_variants
from scpalm.training.runs.config import ConfigError, Stage1Config, Stage2Config
from scpalm.training.runs.run import RunError
from tests.training.tiny import SIZES, tiny_counts, tiny_vocabulary, write_corpus, write_h5ad, write_two_files

CONFIG = AblationConfig(
    SIZES,
    Stage1Config(steps=6, batch_size=16, warmup_steps=2),
    Stage2Config(steps=3, batch_size=16, warmup_steps=1, queue=64, queue_start=16, clusters=3, replicas=2),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    opened = Corpus(write_corpus(tmp_path_factory.mktemp("ablation")))
    kinds = np.array(["a", "b", "c"])[np.arange(len(opened)) % 3]
    opened.obs["cell_type"] = kinds
    return opened


def quiet(text: str, done: int, total: int) -> None:
    pass


@pytest.mark.parametrize("variant", VARIANTS, ids=[variant.name for variant in VARIANTS])
def test_every_variant_trains_and_embeds(corpus: Corpus, variant: object) -> None:
    trained = train_variant(corpus, CONFIG, variant, quiet)  # type: ignore[arg-type]
    batches = [corpus.batch(np.arange(20))]
    widths = {method: trained.embed(method, batches).shape for method in METHODS}
    N, D = SIZES.num_tokens, SIZES.width
    assert widths == {"h_C": (20, D), "mean_tokens": (20, D), "concat_tokens": (20, N * D), "readout": (20, N)}
    assert all(np.isfinite(trained.embed(method, batches)).all() for method in METHODS)
    assert trained.costs["stage1_megabytes"] > 0 and trained.costs["stage2_seconds"] >= 0


def test_a_variant_is_what_its_name_says(corpus: Corpus) -> None:
    by_name = {variant.name: train_variant(corpus, CONFIG, variant, quiet) for variant in VARIANTS[-3:]}
    assert isinstance(by_name["no pathway encoder"].stage1.encoder, nn.Identity)
    batches = [corpus.batch(np.arange(40))]
    tokens = {
        name: trained.embed("concat_tokens", batches).reshape(-1, SIZES.width) for name, trained in by_name.items()
    }
    assert len(np.unique(tokens["no contrastive term"], axis=0)) <= SIZES.num_codes
    assert len(np.unique(tokens["no quantizer"], axis=0)) > SIZES.num_codes
    plain = train_variant(corpus, CONFIG, VARIANTS[0], quiet)
    assert np.abs(plain.embed("h_C", batches) - by_name["no contrastive term"].embed("h_C", batches)).max() > 0
    # Stage 1 does not have this term.
    np.testing.assert_array_equal(
        plain.embed("concat_tokens", batches), by_name["no contrastive term"].embed("concat_tokens", batches)
    )


def test_finished_variants_are_kept_and_other_options_refused(corpus: Corpus, tmp_path: Path) -> None:
    cells = Cells.of_corpus(corpus)
    two = [VARIANTS[0], VARIANTS[-1]]
    first = run_ablation(corpus, Scoring(cells, [0]), CONFIG, two[:1], tmp_path, progress=quiet)
    stamp = (tmp_path / "00.json").stat().st_mtime_ns
    both = run_ablation(corpus, Scoring(cells, [0]), CONFIG, two, tmp_path, progress=quiet)
    assert both[: len(first)] == first and (tmp_path / "00.json").stat().st_mtime_ns == stamp
    assert {row["method"] for row in both} == {f"{variant.name}: {method}" for variant in two for method in METHODS}
    assert not any(row["zero_shot"] for row in both)
    with pytest.raises(RunError, match="other options"):
        run_ablation(corpus, Scoring(cells, [0]), replace(CONFIG, network=replace(SIZES, num_layers=1)), two, tmp_path)


def test_a_corpus_without_labels_asks_for_a_file(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "obs", corpus.obs.assign(cell_type=""))
    with pytest.raises(InputError, match="--file"):
        Cells.of_corpus(corpus)


def test_unknown_variants_are_refused_and_the_first_is_always_there() -> None:
    assert [variant.name for variant in chosen_variants(["no quantizer"])] == ["as it ships", "no quantizer"]
    assert chosen_variants(None) == list(VARIANTS)
    with pytest.raises(ConfigError, match="no such"):
        chosen_variants(["no such"])


def test_the_command_prints_a_table_and_writes_rows(tmp_path: Path) -> None:
    files = write_two_files(tmp_path / "files")
    kinds = [["a", "b"][i % 2] for i in range(60)]
    labelled = write_h5ad(tmp_path / "labelled.h5ad", tiny_counts(60, seed=7), obs={"kind": kinds})
    tiny_vocabulary().save(tmp_path / "genes.parquet")

    def run(*words: object) -> str:
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.stdout

    run("corpus", tmp_path / "corpus", *files, "--genes", tmp_path / "genes.parquet")
    sizes = [word for name in ("num_tokens=8", "width=16", "num_layers=1", "num_codes=16", "gene_width=16")
             for word in ("--set", name)]  # fmt: skip
    words = ("--file", labelled, "--label", "kind", "--steps", 3, "--seeds", 1, "--variant", "no quantizer")
    threads = torch.get_num_threads()
    text = run("evaluate", "ablation", tmp_path / "corpus", *words, *sizes, "--json", tmp_path / "rows.json")
    assert torch.get_num_threads() == threads
    assert "no quantizer: h_C" in text and "stage1_megabytes" in text
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == 2 * len(METHODS) and all(row["task"] == "ablation" and row["zero_shot"] for row in rows)
