from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scpalm.training.corpus.build import build_corpus
from scpalm.training.corpus.reader import Corpus
from scpalm.training.corpus.source import CorpusOptions
from tests.training.corpus.profile_files import simulating, tiny_profile, write_profiles
from tests.training.tiny import NUM_GENES, tiny_vocabulary, write_h5ad


def labelled_file(folder: Path, name: str, depth: tuple[float, float], dispersion: float) -> Path:
    """Two cell types of 150 cells with known noise."""
    random = np.random.default_rng(len(name))
    share = np.stack([tiny_profile(seed) / 1e6 for seed in (1, 2)]).repeat(150, axis=0)
    low, high = np.log(depth)
    totals = np.exp(random.uniform(low, high, 300))
    factor = random.gamma(1 / dispersion, dispersion, share.shape)
    counts = random.poisson(share * factor * totals[:, None]).astype(np.float32)
    return write_h5ad(folder / f"{name}.h5ad", counts, obs={"cell_type": ["a"] * 150 + ["b"] * 150})


def simulation_of(folder: Path, *files: Path, **options: object) -> dict[str, Any]:
    profiles = write_profiles(folder / "p.parquet", {"a": tiny_profile(3)})
    chosen = CorpusOptions(simulation=simulating(profiles, **options))  # type: ignore[arg-type]
    build_corpus(folder / "corpus", files, tiny_vocabulary(), chosen)
    return dict(Corpus(folder / "corpus").meta["simulation"])


def test_depth_and_dispersion_are_those_of_labelled_real_cells(tmp_path: Path) -> None:
    found = simulation_of(tmp_path, labelled_file(tmp_path, "umi", (2000, 8000), 0.4))
    assert found["groups"] == 2
    assert found["dispersion"] == pytest.approx(0.4, rel=0.15)
    low, high = found["depth"]
    assert low == pytest.approx(2000, rel=0.2)
    assert high == pytest.approx(8000, rel=0.2)


def test_counts_of_reads_do_not_enter(tmp_path: Path) -> None:
    files = [labelled_file(tmp_path, "umi", (2000, 8000), 0.4), labelled_file(tmp_path, "reads", (3e5, 2e6), 2.0)]
    (tmp_path / "both").mkdir()
    (tmp_path / "one").mkdir()
    both, one = simulation_of(tmp_path / "both", *files), simulation_of(tmp_path / "one", files[0])
    assert (both["dispersion"], both["depth"], both["groups"]) == (one["dispersion"], one["depth"], one["groups"])


def test_options_come_before_what_was_fitted(tmp_path: Path) -> None:
    file = labelled_file(tmp_path, "umi", (2000, 8000), 0.4)
    found = simulation_of(tmp_path, file, depth=(500.0, 600.0), dispersion=0.1)
    assert (found["depth"], found["dispersion"]) == ([500.0, 600.0], 0.1)


def test_cells_without_labels_leave_the_defaults(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(20, (50, NUM_GENES)).astype(np.float32)
    found = simulation_of(tmp_path, write_h5ad(tmp_path / "plain.h5ad", counts))
    assert (found["depth"], found["dispersion"], found["groups"]) == ([1000.0, 20000.0], 0.3, 0)
