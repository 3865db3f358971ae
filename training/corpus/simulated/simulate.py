"""Draw cells from an expression profile: a negative binomial around it, with a random library size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scpalm.model.genes.rows import GeneSet, Rows
from scpalm.model.genes.values.linear import SCALE
from scpalm.training.corpus.simulated.profiles import Profile, ProfileFile

# Cells that are held in memory before they go to a shard.
CHUNK = 256


@dataclass(frozen=True)
class SimulationOptions:
    """Which profiles to draw cells from, and how.

    Attributes:
        files: the profiles. cells: per profile.
        depth: smallest and largest library size; None: fitted to the corpus' real cells.
        dispersion: of the negative binomial; None: fitted to the corpus' real cells.
        min_genes: columns that measure fewer known genes are skipped. skip: glob patterns of columns to leave out.
    """

    files: tuple[ProfileFile, ...] = ()
    cells: int = 30
    depth: tuple[float, float] | None = None
    dispersion: float | None = None
    min_genes: int = 3000
    skip: tuple[str, ...] = ()


@dataclass(frozen=True)
class Noise:
    """How cells of one type differ.

    Attributes:
        depth: library sizes are log-uniform between these two.
        dispersion: variance of a gene's rate between cells, relative to its squared mean.
        groups: number of labelled groups of real cells that these were fitted to; 0: defaults.
    """

    depth: tuple[float, float] = (1000.0, 20000.0)
    dispersion: float = 0.3
    groups: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For ``corpus.json``."""
        return asdict(self)


@dataclass(frozen=True)
class SimulatedCells:
    """Rows: B cells. counts: ``[entries]`` of the rows. totals: ``[B]`` counts, also of unknown genes. first: number
    of the first cell within its profile."""

    rows: Rows
    counts: NDArray[np.int64]
    totals: NDArray[np.float64]
    first: int


def simulate(
    profile: Profile, measured: NDArray[np.bool_], noise: Noise, num_cells: int, key: tuple[int, str]
) -> Iterator[SimulatedCells]:
    """Draw ``num_cells`` cells, in chunks.

    Counts are ``Poisson(depth * share * factor)``, with a gamma factor of mean 1 for each gene and cell. The cells
    depend on the key and the profile alone, not on other profiles or files.

    Args:
        measured: ``[G]`` bool, genes of the profile. key: the seed and the name of the file.
    """
    random = np.random.default_rng(_entropy(*key, profile.name))
    expressed = np.flatnonzero(profile.share)
    share = profile.share[expressed]
    for first in range(0, num_cells, CHUNK):
        drawn = [_draw(share, noise, random) for _ in range(min(CHUNK, num_cells - first))]
        yield _as_cells(expressed, drawn, measured, first)


def _draw(share: NDArray[np.float64], noise: Noise, random: np.random.Generator) -> NDArray[np.int64]:
    depth = np.exp(random.uniform(*np.log(noise.depth)))
    rate = share * depth
    if noise.dispersion > 0:
        rate *= random.gamma(1 / noise.dispersion, noise.dispersion, len(share))
    return random.poisson(rate)


def _as_cells(
    expressed: NDArray[np.int64], drawn: list[NDArray[np.int64]], measured: NDArray[np.bool_], first: int
) -> SimulatedCells:
    num_genes = len(measured)
    totals = np.array([counts.sum() for counts in drawn], dtype=np.float64)
    known = [np.flatnonzero((counts > 0) & (expressed < num_genes)) for counts in drawn]
    lengths = np.array([len(genes) for genes in known])
    counts = np.concatenate([counts[genes] for counts, genes in zip(drawn, known, strict=True)])
    scale = np.repeat(SCALE / np.maximum(totals, 1), lengths)
    rows = Rows(
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        np.concatenate([expressed[genes] for genes in known]).astype(np.int32),
        np.log1p(scale * counts).astype(np.float32),
        (GeneSet(measured),),
        np.zeros(len(drawn), dtype=np.int32),
    )
    return SimulatedCells(rows, counts, totals, first)


def _entropy(seed: int, file: str, column: str) -> list[int]:
    digest = hashlib.blake2b(f"{file}\0{column}".encode(), digest_size=16).digest()
    # SeedSequence takes no negative numbers.
    return [seed & 0xFFFFFFFFFFFFFFFF, int.from_bytes(digest, "little")]
