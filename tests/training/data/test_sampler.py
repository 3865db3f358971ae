from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from scpalm.training.corpus.build import build_corpus
from scpalm.training.corpus.reader import Corpus, CorpusError
from scpalm.training.corpus.source import CorpusOptions
from scpalm.training.data.sampler import Sampler
from tests.training.corpus.profile_files import simulating, tiny_profile, write_profiles
from tests.training.tiny import tiny_vocabulary, write_two_files


def test_depends_on_seed_and_step_alone(corpus: Corpus) -> None:
    sampler = Sampler(corpus, power=0.5, seed=3)
    sampler.draw(0, 50)
    again = Sampler(corpus, power=0.5, seed=3)
    np.testing.assert_array_equal(sampler.draw(7, 50), again.draw(7, 50))
    assert not np.array_equal(sampler.draw(7, 50), sampler.draw(8, 50))
    assert not np.array_equal(sampler.draw(7, 50), Sampler(corpus, power=0.5, seed=4).draw(7, 50))


def test_its_generators_differ_by_purpose(corpus: Corpus) -> None:
    sampler = Sampler(corpus, power=0.5, seed=3)
    draws = {sampler.generator(step, purpose).random() for step in (1, 2) for purpose in (0, 1, 2)}
    assert len(draws) == 6


def test_draws_training_cells_only(corpus: Corpus) -> None:
    drawn = Sampler(corpus, power=1.0, seed=0).draw(0, 20_000)
    assert set(drawn) == set(corpus.train_rows)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_a_tissue_is_drawn_by_the_power_of_its_size(corpus: Corpus, power: float) -> None:
    blood = int((corpus.train_rows < 200).sum())
    skin = len(corpus.train_rows) - blood
    drawn = Sampler(corpus, power=power, seed=0).draw(0, 40_000)
    expected = blood**power / (blood**power + skin**power)
    assert (drawn < 200).mean() == pytest.approx(expected, abs=0.01)


def test_a_corpus_that_is_all_held_out_is_refused(corpus: Corpus, tmp_path: Path) -> None:
    path = Path(shutil.copytree(corpus.path, tmp_path / "corpus"))
    table = corpus.obs.assign(held_out=True)
    table.to_parquet(path / "obs.parquet")
    with pytest.raises(CorpusError, match="no cell to train on"):
        Sampler(Corpus(path), power=0.5, seed=0)


def test_a_data_set_can_be_balanced_instead(corpus: Corpus) -> None:
    drawn = Sampler(corpus, power=0.0, seed=0, balance_by="dataset").draw(0, 40_000)
    assert (drawn < 200).mean() == pytest.approx(0.5, abs=0.01)


class TestBlocks:
    def test_depend_on_seed_and_step_alone(self, corpus: Corpus) -> None:
        one, other = (Sampler(corpus, power=0.5, seed=3, block=8) for _ in range(2))
        batches = [one.batch(step, 16) for step in range(70)]
        for step in (69, 3, 40):
            np.testing.assert_array_equal(other.batch(step, 16), batches[step])
        assert not np.array_equal(batches[0], batches[1])
        assert not np.array_equal(Sampler(corpus, power=0.5, seed=4, block=8).batch(0, 16), batches[0])

    def test_read_runs_of_neighbours(self, corpus: Corpus) -> None:
        sampler = Sampler(corpus, power=1.0, seed=0, block=10)
        # A window of 64 runs: 640 cells, in 20 batches of 32.
        rows = np.concatenate([sampler.batch(step, 32) for step in range(20)])
        positions = np.searchsorted(sampler.rows, rows)
        runs = np.bincount(positions // 10)
        assert (runs % 10 == 0).all()
        assert runs.sum() == 640
        assert (np.diff(positions) == 1).mean() < 0.1

    @pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("block", [7, 1000])
    def test_keep_every_cells_weight(self, corpus: Corpus, power: float, block: int) -> None:
        blocks, single = (Sampler(corpus, power=power, seed=0, block=size) for size in (block, 1))
        drawn = np.concatenate([blocks.batch(step, 4000) for step in range(40)])
        expected = np.bincount(single.draw(0, 160_000), minlength=len(corpus)) / 160_000
        found = np.bincount(drawn, minlength=len(corpus)) / 160_000
        assert set(drawn) == set(corpus.train_rows)
        np.testing.assert_allclose(found, expected, atol=0.0025)


class TestSimulatedCells:
    """The tiny files of 300 real cells, with profiles of 30 cells each."""

    @pytest.fixture(scope="class")
    @classmethod
    def mixed(cls, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
        folder = tmp_path_factory.mktemp("mixed")
        profiles = write_profiles(folder / "p.parquet", {f"Skin_X|{i}": tiny_profile(i) for i in range(4)})
        options = CorpusOptions(held_out=0.2, simulation=simulating(profiles))
        build_corpus(folder / "corpus", write_two_files(folder), tiny_vocabulary(), options)
        return Corpus(folder / "corpus")

    @pytest.mark.parametrize("block", [1, 7])
    @pytest.mark.parametrize("share", [0.0, 0.35, 1.0])
    def test_are_drawn_with_their_share(self, mixed: Corpus, share: float, block: int) -> None:
        sampler = Sampler(mixed, power=0.5, seed=0, block=block, simulated_share=share)
        drawn = mixed.obs["simulated"].to_numpy()[sampler.batch(0, 20_000)]
        assert drawn.mean() == pytest.approx(share, abs=0.03)

    def test_every_profile_has_the_same_weight(self, mixed: Corpus) -> None:
        drawn = mixed.obs.iloc[Sampler(mixed, power=0.5, seed=0).draw(0, 60_000)]
        shares = drawn[drawn["simulated"]]["cell_type"].value_counts(normalize=True)
        np.testing.assert_allclose(shares, 0.25, atol=0.015)

    def test_leave_the_weights_of_real_cells_alone(self, mixed: Corpus) -> None:
        drawn = mixed.obs.iloc[Sampler(mixed, power=0.0, seed=0).draw(0, 60_000)]
        tissues = drawn[~drawn["simulated"]]["tissue"].value_counts(normalize=True)
        np.testing.assert_allclose(tissues, 0.5, atol=0.015)

    def test_have_no_effect_where_there_are_none(self, corpus: Corpus) -> None:
        few, many = (Sampler(corpus, power=0.5, seed=3, simulated_share=share).draw(0, 50) for share in (0.0, 0.9))
        np.testing.assert_array_equal(few, many)
