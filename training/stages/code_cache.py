"""The output of the frozen stage 1 that stage 2 trains on, computed once: N bytes per cell and replica, and scores."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.network.collective import rank, world_size
from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.corpus.reader import Corpus
from scpalm.training.corpus.thinning import Streams
from scpalm.training.data.batches import Feed
from scpalm.training.data.transfer import DeviceFeed
from scpalm.training.runs.config import Stage2Config
from scpalm.training.runs.processes import sum_over_processes
from scpalm.training.stages.corpus_statistics import Scores

_CELLS_AT_ONCE = 256


@dataclass(frozen=True)
class CodeCache:
    """The output of the frozen stage 1 for every cell of a corpus.

    Attributes:
        codes: ``[replicas, cells, N]``, one byte each where possible; ``[replicas, cells, N, code_width]`` points for a
            stage 1 without codes. Replica 0 is the whole cell, the others are random parts of its counts.
        scores: ``[replicas, cells, M]`` float32 spectral scores of the *remaining* counts (for replica 0, of the whole
            cell). Copying noise cannot predict them.
    """

    codes: NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]
    scores: NDArray[np.float32]


@torch.no_grad()
def cache_cells(
    corpus: Corpus,
    model: PathwayAutoencoder,
    scores: Scores,
    config: Stage2Config,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CodeCache:
    """Encode every cell, whole and in random parts (seeded).

    Processes that train together divide the cells among them, and each gets the full result. It equals that of one
    process, because a cell's random part depends on the seed and the cell alone.
    """
    model.eval().to(device)
    scores.to(device)
    kind = np.float32 if model.quantizer.bypass else np.uint8 if model.config.num_codes <= 256 else np.uint16
    width = (len(model.quantizer.codes[0]),) if model.quantizer.bypass else ()
    # Zeros at the cells of other processes: the sum over all processes is then complete.
    codes = np.zeros((config.replicas, len(corpus), model.config.num_tokens, *width), dtype=kind)
    targets = np.zeros((config.replicas, len(corpus), scores.count), dtype=np.float32)
    for replica in range(config.replicas):
        keep = np.ones(len(corpus))
        if replica:
            random = np.random.default_rng([config.seed, replica])
            keep = random.uniform(config.thin_low, max(config.thin_low, 1 - config.thin_low), len(corpus))
        starts = range(rank() * _CELLS_AT_ONCE, len(corpus), world_size() * _CELLS_AT_ONCE)
        parts = _SplitCells(corpus, keep, (config.seed, replica, 5), starts)
        feed = DeviceFeed(Feed(parts, len(starts), config.workers), device)
        for number, start in enumerate(starts):
            rows = slice(start, start + _CELLS_AT_ONCE)
            seen, unseen = feed.at(number)
            encoded = model.encode_read_out(model.read_out(seen))
            codes[replica, rows] = model.quantizer.compress(encoded).cpu().numpy()
            targets[replica, rows] = scores.of(unseen).cpu().numpy()
            progress(replica * len(corpus) + min(rows.stop, len(corpus)), config.replicas * len(corpus))
        feed.close()
        sum_over_processes(codes[replica])
        sum_over_processes(targets[replica])
    progress(config.replicas * len(corpus), config.replicas * len(corpus))
    return CodeCache(codes, targets)


@dataclass(frozen=True)
class _SplitCells:
    """Consecutive cells of a corpus, their counts split at random between two cells each.

    Attributes:
        keep: ``[cells]`` share of the counts of the first. key: of the random numbers. starts: first cell of each part.
    """

    corpus: Corpus
    keep: NDArray[np.float64]
    key: tuple[int, ...]
    starts: range

    def __call__(self, step: int) -> tuple[SparseCells, SparseCells]:
        start = self.starts[step]
        rows = np.arange(start, min(start + _CELLS_AT_ONCE, len(self.corpus)))
        return self.corpus.split_batch(rows, self.keep[rows], Streams(*self.key, first=start))


def codes_as_tensor(codes: NDArray[np.unsignedinteger] | NDArray[np.float32]) -> Tensor:
    """Some of a cache's codes as a tensor for the quantizer."""
    return torch.from_numpy(codes if codes.dtype.kind == "f" else codes.astype(np.int64))


class DeviceCache:
    """A cache on the device: on a GPU ``N + 4 M`` bytes of its memory for each cell and replica; on a CPU no copy."""

    def __init__(self, cache: CodeCache, device: torch.device) -> None:
        # PyTorch cannot index uint16. Codes are below 32,768, so that int16 holds them, too.
        codes = cache.codes.view(np.int16) if cache.codes.dtype == np.uint16 else cache.codes
        self._codes = torch.from_numpy(codes).to(device)
        self._scores = torch.from_numpy(cache.scores).to(device)

    def at(self, replica: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        """Codes, input of `Quantizer.decompress`, and scores ``[B, M]`` of some cells; replica, row: ``[B]`` int64."""
        codes = self._codes[replica, row]
        return codes if codes.is_floating_point() else codes.long(), self._scores[replica, row]


def cache_key(corpus: Corpus, stage1: PathwayAutoencoder, config: Stage2Config) -> str:
    """A hash of everything a cache was made from: weights, cells and options."""
    options = (
        stage1.quantizer.bypass,
        config.seed,
        config.replicas,
        config.thin_low,
        config.tissue_power,
        len(corpus),
        corpus.num_genes,
    )
    digest = hashlib.sha256(repr(options).encode())
    for value in stage1.state_dict().values():
        for tensor in value.values() if isinstance(value, dict) else [value]:  # extra state is a dict
            digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def read_cache(kept: Path | None, mark: str) -> CodeCache | None:
    """The saved cache, if it is valid and was made from the same weights, cells and options."""
    if kept is None or not kept.is_file():
        return None
    try:
        with np.load(kept) as stored:
            if str(stored["mark"]) != mark or stored["codes"].dtype.kind not in "uf":
                return None
            return CodeCache(stored["codes"], stored["scores"])
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None  # a damaged cache is computed again


def write_cache(kept: Path, mark: str, cache: CodeCache) -> None:
    """Write the cache, whole or not at all."""
    partial = kept.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(file, codes=cache.codes, scores=cache.scores, mark=np.array(mark))
    partial.replace(kept)
