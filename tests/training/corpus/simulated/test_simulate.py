from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from scpalm.training.corpus.build import build_corpus
from scpalm.training.corpus.errors import CorpusError
from scpalm.training.corpus.reader import Corpus
from scpalm.training.corpus.simulated.profiles import Profile
from scpalm.training.corpus.simulated.simulate import CHUNK, Noise, simulate
from scpalm.training.corpus.source import CorpusOptions
from scpalm.training.corpus.thinning import Streams
from tests.training.corpus.profile_files import simulating, tiny_profile, write_profiles
from tests.training.tiny import NUM_GENES, tiny_vocabulary, write_two_files

VOCABULARY = tiny_vocabulary()
ALL = np.ones(NUM_GENES, dtype=bool)


def profile(seed: int = 1) -> Profile:
    share = np.append(tiny_profile(seed), 2e5)  # a sixth of the counts is of unknown genes
    return Profile("B cell", "blood", share / share.sum())


def counts_of(corpus: Corpus, row: int) -> np.ndarray:
    """``[G]`` counts, from log1p CP10K and the total."""
    genes, values = corpus.cell(row)
    counts = np.zeros(NUM_GENES)
    counts[genes] = np.expm1(values.astype(np.float64)) * corpus.obs["total"][row] / 1e4
    return counts


def write_sources(folder: Path) -> tuple[Path, Path]:
    some = tiny_profile(4)
    some[100:] = np.nan
    one = write_profiles(
        folder / "one.parquet", {"Heart_X|a": tiny_profile(3), "Lung_X|b": some, "var:a": tiny_profile(9)}
    )
    return one, write_profiles(folder / "two.parquet", {"Heart_X|a": tiny_profile(5)})


class TestSimulate:
    def test_the_mean_of_the_cells_is_the_profile(self) -> None:
        drawn = list(simulate(profile(), ALL, Noise((2000, 4000), 0.3), 3000, (0, "file")))
        assert [len(part.rows) for part in drawn] == [CHUNK] * (3000 // CHUNK) + [3000 % CHUNK]
        total = sum(part.totals.sum() for part in drawn)
        summed = np.zeros(NUM_GENES)
        for part in drawn:
            np.add.at(summed, part.rows.gene_index, part.counts)
        expected = profile().share[:-1]
        # A gene's rate has a relative sd of 0.55 per cell, its mean over 3,000 cells one of 0.01.
        np.testing.assert_allclose(summed / total, expected, rtol=0.06, atol=3e-5)

    def test_the_variance_is_that_of_a_negative_binomial(self) -> None:
        share = np.full(NUM_GENES + 1, 1 / (NUM_GENES + 1))
        x = np.zeros((4000, NUM_GENES))
        parts = list(simulate(Profile("even", "", share), ALL, Noise((6050, 6050), 0.5), 4000, (0, "file")))
        for number, part in enumerate(parts):
            row = np.repeat(np.arange(len(part.rows)), part.rows.lengths()) + number * CHUNK
            x[row, part.rows.gene_index] = part.counts
        assert x.mean() == pytest.approx(50, rel=0.01)
        assert x.var(axis=0).mean() == pytest.approx(50 + 0.5 * 50**2, rel=0.02)

    def test_without_dispersion_the_counts_are_poisson(self) -> None:
        share = np.full(NUM_GENES + 1, 1 / (NUM_GENES + 1))
        (part,) = simulate(Profile("even", "", share), ALL, Noise((6050, 6050), 0.0), 200, (0, "file"))
        assert part.counts.var() == pytest.approx(50, rel=0.05)

    def test_more_cells_begin_with_the_same_cells(self) -> None:
        few, many = (next(simulate(profile(), ALL, Noise(), number, (3, "file"))) for number in (5, 50))
        np.testing.assert_array_equal(few.rows.value, many.rows.slice(0, 5).value)

    @pytest.mark.parametrize("key", [(4, "file"), (3, "other"), (-3, "file")])
    def test_seed_and_file_change_the_cells(self, key: tuple[int, str]) -> None:
        one, other = (next(simulate(profile(), ALL, Noise(), 5, k)) for k in ((3, "file"), key))
        assert one.totals.tolist() != other.totals.tolist()


class TestInACorpus:
    def build(self, folder: Path, *profiles: Path, **options: object) -> Corpus:
        real = write_two_files(folder.with_name(folder.name + "-files"))
        simulation = simulating(*profiles)
        build_corpus(folder, real, VOCABULARY, CorpusOptions(simulation=simulation, shard_cells=64, **options))  # type: ignore[arg-type]
        return Corpus(folder)

    def test_simulated_cells_follow_the_real_ones_and_are_marked(self, tmp_path: Path) -> None:
        corpus = self.build(tmp_path / "corpus", *write_sources(tmp_path))
        assert corpus.obs["simulated"].tolist() == [False] * 300 + [True] * 90
        assert corpus.obs["cell"].is_unique
        assert corpus.obs.loc[330, ["dataset", "tissue", "cell_type", "cell"]].tolist() == [
            "one",
            "lung",
            "Lung_X|b",
            "one|Lung_X|b|0",
        ]
        # One row for each file and each set of measured genes.
        assert corpus.measured.shape == (5, NUM_GENES)
        assert corpus.obs["file"][300:].tolist() == [2] * 30 + [3] * 30 + [4] * 30
        assert not corpus.measured[3, 100:].any() and corpus.measured[3, :100].all()
        assert all(genes.max() < 100 for genes, _ in map(corpus.cell, range(330, 360)))

    def test_the_description_says_what_was_simulated_and_skipped(self, tmp_path: Path) -> None:
        meta = self.build(tmp_path / "corpus", *write_sources(tmp_path)).meta
        assert [(f["file"], f["cells"], f.get("simulated", False)) for f in meta["files"]] == [
            ("first.h5ad", 200, False),
            ("second.h5ad", 100, False),
            ("one.parquet", 30, True),
            ("one.parquet", 30, True),
            ("two.parquet", 30, True),
        ]
        simulation = meta["simulation"]
        assert simulation["cells_per_profile"] == 30
        assert (simulation["depth"], simulation["dispersion"], simulation["groups"]) == ([1000.0, 20000.0], 0.3, 0)
        one, two = simulation["files"]
        assert (one["profiles"], list(one["skipped"]), two["skipped"]) == (2, ["var:a"], {})

    def test_counts_can_be_recovered_from_the_values(self, tmp_path: Path) -> None:
        corpus = self.build(tmp_path / "corpus", *write_sources(tmp_path))
        for row in (300, 345, 389):
            counts = counts_of(corpus, row)
            np.testing.assert_allclose(counts, np.rint(counts), atol=2e-2)
            assert np.rint(counts).sum() == corpus.obs["total"][row]
        thinned, whole = corpus.thinned_batch(np.array([300]), np.array([0.5]), Streams(0))
        assert len(thinned.value) < len(whole.value)

    def test_the_same_cells_come_in_any_order_of_files(self, tmp_path: Path) -> None:
        one, two = write_sources(tmp_path)
        forward = self.build(tmp_path / "forward", one, two, held_out=0.2)
        backward = self.build(tmp_path / "backward", two, one, held_out=0.2)

        def content(corpus: Corpus) -> dict[str, tuple[bytes, bytes, float, bool]]:
            rows = np.flatnonzero(corpus.obs["simulated"])
            names, totals, kept = (corpus.obs[name].to_numpy() for name in ("cell", "total", "held_out"))
            return {names[row]: (*(a.tobytes() for a in corpus.cell(int(row))), totals[row], kept[row]) for row in rows}

        assert content(forward) == content(backward)
        assert 5 < sum(value[3] for value in content(forward).values()) < 35

    def test_two_builds_give_the_same_bytes(self, tmp_path: Path) -> None:
        sources = write_sources(tmp_path)
        for name in ("a", "b"):
            self.build(tmp_path / name, *sources)
        for path in sorted((tmp_path / "a").rglob("*.*")):
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name

    def test_profiles_alone_make_a_corpus(self, tmp_path: Path) -> None:
        build_corpus(
            tmp_path / "corpus", [], VOCABULARY, CorpusOptions(simulation=simulating(*write_sources(tmp_path)))
        )
        assert len(Corpus(tmp_path / "corpus")) == 90

    def test_profiles_that_are_all_skipped_leave_no_cell(self, tmp_path: Path) -> None:
        path = write_profiles(tmp_path / "p.parquet", {"var:a": tiny_profile(1)})
        with pytest.raises(CorpusError, match="no profile is fit"):
            build_corpus(tmp_path / "corpus", [], VOCABULARY, CorpusOptions(simulation=simulating(path)))

    def test_two_files_of_one_name_are_refused(self, tmp_path: Path) -> None:
        one, _ = write_sources(tmp_path)
        (tmp_path / "more").mkdir()
        other = write_profiles(tmp_path / "more" / "one.parquet", {"a": tiny_profile(1)})
        with pytest.raises(CorpusError, match="Two profile files are called 'one'"):
            build_corpus(tmp_path / "corpus", [], VOCABULARY, CorpusOptions(simulation=simulating(one, other)))

    def test_a_corpus_built_before_has_real_cells_only(self, tmp_path: Path) -> None:
        corpus = self.build(tmp_path / "corpus")
        assert "simulation" not in json.loads((corpus.path / "corpus.json").read_text())
        corpus.obs.drop(columns="simulated").to_parquet(corpus.path / "obs.parquet")
        assert not Corpus(corpus.path).obs["simulated"].any()
