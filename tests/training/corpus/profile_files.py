"""Small files of expression profiles over the tiny vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scpalm.training.corpus.simulated.profiles import ProfileFile
from scpalm.training.corpus.simulated.simulate import SimulationOptions
from tests.training.tiny import NUM_GENES


def tiny_profile(seed: int, num_genes: int = NUM_GENES) -> NDArray[np.float64]:
    """``[genes]`` CPM of a made-up cell type; a tenth of the genes is not expressed."""
    random = np.random.default_rng(seed)
    values = random.gamma(0.5, 1.0, num_genes) * (random.random(num_genes) > 0.1)
    return values / values.sum() * 1e6


def write_profiles(path: Path, columns: Mapping[str, NDArray[np.float64]]) -> Path:
    num_genes = len(next(iter(columns.values())))
    index = pd.Index([f"GENE{i}" for i in range(num_genes)], name="symbol")
    pd.DataFrame(dict(columns), index=index).to_parquet(path)
    return path


def simulating(*files: Path, cells: int = 30, **options: object) -> SimulationOptions:
    """Options that accept profiles of the tiny vocabulary."""
    return SimulationOptions(tuple(map(ProfileFile, files)), cells, min_genes=10, **options)  # type: ignore[arg-type]
