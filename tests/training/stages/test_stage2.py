from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import Stage1Config, Stage2Config, as_dict
from scpalm.training.runs.run import Run, RunError
from scpalm.training.stages.stage1 import Stage1Trainer, load_stage1
from scpalm.training.stages.stage2 import STAGE, Stage2Trainer, View, prepare_stage2, train_cells
from tests.training.same import assert_same_state
from tests.training.tiny import CPU, SIZES

SHORT = Stage2Config(
    steps=20,
    batch_size=16,
    warmup_steps=5,
    lr=3e-3,
    checkpoint_every=10,
    evaluate_every=10,
    clusters=3,
    negatives=6,
    queue=96,
    queue_start=48,
    refit_every=4,
    replicas=2,
)


PLAIN = ("steps", "batch_size", "warmup_steps", "lr", "checkpoint_every", "evaluate_every", "replicas")


@pytest.fixture(scope="module")
def stage1_state(corpus: Corpus) -> dict[str, Tensor]:
    """A stage 1 that was trained for 60 steps."""
    config = Stage1Config(steps=60, batch_size=32, warmup_steps=5, lr=3e-3)
    trainer = Stage1Trainer(corpus, SIZES, config, CPU)
    for _ in range(60):
        trainer.train_step()
    return trainer.model.state_dict()


def trainer(
    corpus: Corpus,
    state: dict[str, Tensor],
    config: Stage2Config = SHORT,
    sees: Literal["none", "add", "prepend"] = "add",
) -> Stage2Trainer:
    stage1 = PathwayAutoencoder(replace(SIZES, decoder_sees_cell=sees))
    stage1.load_state_dict(state)
    return prepare_stage2(corpus, stage1, config, CPU)


def steps(trainer: Stage2Trainer, count: int) -> Stage2Trainer:
    for _ in range(count):
        trainer.train_step()
    return trainer


def test_the_cache_holds_the_codes_of_every_cell_whole_first(corpus: Corpus, stage1_state: dict[str, Tensor]) -> None:
    model = trainer(corpus, stage1_state)
    codes, scores = model.cache.codes, model.cache.scores
    assert codes.shape == (2, len(corpus), SIZES.num_tokens) and codes.dtype == np.uint8
    assert scores.shape[:2] == (2, len(corpus))
    assert np.isfinite(scores).all()
    whole = model.stage1.encode(corpus.batch(np.arange(len(corpus)))).numpy()
    np.testing.assert_array_equal(codes[0], whole)
    assert (codes[1] != codes[0]).any()
    again = trainer(corpus, stage1_state).cache
    np.testing.assert_array_equal(again.codes, codes)
    np.testing.assert_array_equal(again.scores, scores)


def test_codes_above_255_are_stored_without_loss(corpus: Corpus) -> None:
    sizes = replace(SIZES, num_codes=700)
    torch.manual_seed(0)
    stage1 = PathwayAutoencoder(sizes).eval()
    cache = prepare_stage2(corpus, stage1, replace(SHORT, replicas=1), CPU).cache
    assert cache.codes.dtype == np.uint16 and cache.codes.max() > 255
    np.testing.assert_array_equal(cache.codes[0], stage1.encode(corpus.batch(np.arange(len(corpus)))).numpy())


def test_encoded_cells_are_kept_for_the_same_weights_and_options_only(
    corpus: Corpus, stage1_state: dict[str, Tensor], tmp_path: Path
) -> None:
    stage1 = PathwayAutoencoder(SIZES)
    stage1.load_state_dict(stage1_state)
    kept = tmp_path / "codes.npz"
    done: list[int] = []

    def encoded(config: Stage2Config) -> bool:
        """Whether the cells had to be encoded. The result must be the same either way."""
        done.clear()
        cache = prepare_stage2(corpus, stage1, config, CPU, lambda cells, total: done.append(cells), kept).cache
        fresh = prepare_stage2(corpus, stage1, config, CPU).cache
        np.testing.assert_array_equal(cache.codes, fresh.codes)
        np.testing.assert_array_equal(cache.scores, fresh.scores)
        return bool(done)

    assert encoded(SHORT)
    assert not encoded(replace(SHORT, lr=1e-3))
    assert encoded(replace(SHORT, seed=5))
    kept.write_bytes(kept.read_bytes()[:100])
    assert encoded(replace(SHORT, seed=5))
    with torch.no_grad():
        stage1.quantizer.codes[0] += 0.1
    assert encoded(replace(SHORT, seed=5))


def test_a_view_keeps_an_exact_sorted_share_of_the_tokens(corpus: Corpus, stage1_state: dict[str, Tensor]) -> None:
    model = trainer(corpus, stage1_state)
    rows = np.arange(40)
    for share, count in ((0.5, 4), (0.01, 1), (1.0, 8), (0.25, 2)):
        view: View = model._view(rows, share, np.random.default_rng(0))
        assert view.kept.shape == (40, count)
        assert (view.kept[:, 1:] > view.kept[:, :-1]).all()
    assert len(model._view(rows, 0.5, np.random.default_rng(0)).kept.unique(dim=0)) > 10


def test_the_loss_is_over_the_genes_of_tokens_left_out(corpus: Corpus, stage1_state: dict[str, Tensor]) -> None:
    kept = torch.tensor([[0, 2], [1, 7]])
    mask = trainer(corpus, stage1_state)._left_out(kept)
    token_of_gene = torch.arange(SIZES.num_genes) // SIZES.genes_per_token
    for cell in range(2):
        assert torch.equal(mask[cell], ~torch.isin(token_of_gene, kept[cell]))


@pytest.mark.parametrize("sees", ["none", "add", "prepend"])
@pytest.mark.parametrize("contrastive", [0.0, 1.0])
def test_it_trains_with_everything_the_decoder_can_see(
    corpus: Corpus,
    stage1_state: dict[str, Tensor],
    tmp_path: Path,
    sees: Literal["none", "add", "prepend"],
    contrastive: float,
) -> None:
    # Without the contrastive term, its options must keep their defaults.
    config = SHORT if contrastive else Stage2Config(**{k: getattr(SHORT, k) for k in PLAIN}, contrastive=0.0)
    model = trainer(corpus, stage1_state, config, sees)
    names: list[set[str]] = []
    run = Run(tmp_path)
    train_cells(model, run, lambda step, scalars: names.append(set(scalars)))
    assert run.has_checkpoint(STAGE)
    assert model.step == 20
    # 16 cells per step: 48 are queued after the third.
    assert ["contrastive" in step for step in names] == [contrastive > 0 and i >= 2 for i in range(20)]
    assert all(torch.isfinite(p).all() for p in [*model.encoder.parameters(), *model.decoder.parameters()])


def test_it_learns_more_than_the_gene_means(corpus: Corpus, stage1_state: dict[str, Tensor], tmp_path: Path) -> None:
    model = trainer(corpus, stage1_state, replace(SHORT, steps=120, batch_size=32, contrastive=0.1))
    train_cells(model, Run(tmp_path))
    scalars = model.evaluate()
    assert scalars["held_out_mse"] < 0.95 * scalars["gene_mean_mse"]


def test_stage_1_is_not_changed(corpus: Corpus, stage1_state: dict[str, Tensor]) -> None:
    model = steps(trainer(corpus, stage1_state), 6)
    assert_same_state(model.stage1.state_dict(), stage1_state)


# Stop before the queue is ready, at a refit, and between two refits.
@pytest.mark.parametrize("stop", [2, 8, 11])
def test_a_resumed_run_is_the_same_run_bit_for_bit(
    corpus: Corpus, stage1_state: dict[str, Tensor], tmp_path: Path, stop: int
) -> None:
    whole = steps(trainer(corpus, stage1_state), 20)
    run = Run(tmp_path)
    run.save_checkpoint(STAGE, steps(trainer(corpus, stage1_state), stop).state())
    resumed = trainer(corpus, stage1_state)
    run.resume(resumed, STAGE)
    assert resumed.step == stop
    steps(resumed, 20 - stop)
    assert_same_state(resumed.state(), whole.state())
    assert resumed.evaluate() == whole.evaluate()


def test_runs_depend_on_the_seed(corpus: Corpus, stage1_state: dict[str, Tensor]) -> None:
    runs = [steps(trainer(corpus, stage1_state, replace(SHORT, seed=seed)), 6) for seed in (1, 1, 2)]
    assert_same_state(runs[0].state(), runs[1].state())
    with pytest.raises(AssertionError):
        assert_same_state(runs[0].state(), runs[2].state())


def test_a_non_finite_loss_stops_the_run(corpus: Corpus, stage1_state: dict[str, Tensor]) -> None:
    model = steps(trainer(corpus, stage1_state), 2)
    with torch.no_grad():
        model.decoder.head.bias[0] = float("nan")
    with pytest.raises(RunError, match="not finite at step 2"):
        model.train_step()


def test_one_replica_and_no_thinning(corpus: Corpus, stage1_state: dict[str, Tensor]) -> None:
    model = trainer(corpus, stage1_state, replace(SHORT, replicas=1, thin_share=0.0))
    steps(model, 4)
    assert model.step == 4


def test_a_run_without_stage_1_says_so(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.create({"stage1": as_dict(Stage1Config())})
    with pytest.raises(RunError, match=r"stage1\.pt cannot be read.*Train the stage first"):
        load_stage1(run, SIZES)


def test_a_stage_1_without_codes_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.create({"stage1": as_dict(Stage1Config(quantizer=False))})
    with pytest.raises(RunError, match=r"quantizer=false, so its cells have no codes.*train it with quantizer=true"):
        load_stage1(run, SIZES)
