"""Common part of both runtimes: splits rows into fixed shapes, runs them on a few threads, and joins the results.

Letters: B cells, N tokens, D width.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.genes.rows import Rows
from scpalm.model.network.config import NetworkConfig
from scpalm.model.sessions.gene_head import GeneReadOut
from scpalm.model.sessions.session import Encoded, SessionInfo
from scpalm.model.sessions.shapes import Padded, ZeroTable, split, synthetic_rows, warm_shapes

WEIGHTS_FILE = "weights.safetensors"
DECODED_CELLS = 16  # cells per run of the decoder


def available_cores() -> int:
    """Number of CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def network_config(bundle: Bundle) -> NetworkConfig:
    """Sizes from the manifest. Raises BundleError if they are invalid or do not fit the vocabulary."""
    try:
        config = NetworkConfig(**bundle.manifest["network"])
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"{bundle.path}/manifest.json has no valid network sizes ({error}). Export the bundle again."
        ) from error
    if config.num_genes != len(bundle.vocabulary):
        raise BundleError(
            f"{bundle.path}: genes.parquet has {len(bundle.vocabulary)} genes, but the network has "
            f"{config.num_genes}. Export the bundle again."
        )
    return config


def _offset(bundle: Bundle, expected: tuple[int, int]) -> NDArray[np.float32]:
    path = bundle.file(WEIGHTS_FILE)
    try:
        with safe_open(path, framework="numpy") as tensors:
            offset = tensors.get_tensor("offset").astype(np.float32)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{path} cannot be read ({error}). Export the bundle again.") from error
    if offset.shape != expected:
        raise BundleError(f"{path}: offset has shape {offset.shape}, not {expected}. Export the bundle again.")
    return offset


class BucketedSession(ABC):
    """A session over fixed batch shapes.

    Each batch runs on one thread, so results do not depend on how a matrix product is divided among threads.
    """

    def __init__(self, bundle: Bundle, *, runtime: str, device: str, threads: int | None) -> None:
        self._config = network_config(bundle)
        offset = _offset(bundle, (self._config.num_genes, self._config.num_tokens))
        self._zeros = ZeroTable(offset)
        self._pool = ThreadPoolExecutor(threads or available_cores(), thread_name_prefix="scpalm-session")
        config = self._config
        self._bundle = bundle
        self._gene_head: GeneReadOut | None = None
        self._info = SessionInfo(runtime, device, config.width, config.num_tokens, config.num_codes, config.num_genes)

    @property
    def info(self) -> SessionInfo:
        return self._info

    @abstractmethod
    def _run_padded(self, batch: Padded) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """``h_C [B, D]`` and codes ``[B, N]`` of one batch of fixed shape, including padding rows."""

    def run_both(self, rows: Rows) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """``h_C [B, D]`` float32 and codes ``[B, N]`` int32."""
        embedding = np.empty((len(rows), self._config.width), dtype=np.float32)
        codes = np.empty((len(rows), self._config.num_tokens), dtype=np.int32)
        # Run the largest batches first, so that the threads finish at about the same time.
        batches = sorted(split(rows, self._zeros), key=lambda batch: -batch.gene_index.size)
        run = map(self._run_padded, batches) if len(batches) == 1 else self._pool.map(self._run_padded, batches)
        for batch, (h, c) in zip(batches, run, strict=True):
            embedding[batch.rows] = h[: len(batch.rows)]
            codes[batch.rows] = c[: len(batch.rows)]
        return embedding, codes

    def encode(self, rows: Rows) -> Encoded:
        """See `scpalm.model.sessions.session.Session`."""
        return Encoded(*self.run_both(rows), rows)

    @abstractmethod
    def _decode_padded(self, codes: NDArray[np.int32]) -> NDArray[np.float32]:
        """Codes ``[DECODED_CELLS, N]`` -> input of the gene head ``[DECODED_CELLS, N, D]``. Raises BundleError."""

    def impute(self, codes: NDArray[np.int32], genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `scpalm.model.sessions.session.Session`."""
        if self._gene_head is None:
            self._gene_head = GeneReadOut.load(self._bundle, self._config)
        columns = self._gene_head.columns(genes)
        out = np.empty((len(codes), len(genes)), dtype=np.float32)

        def run(start: int) -> None:
            # Pad with zeros to a fixed shape, so that a cell's values do not depend on the other cells.
            part = codes[start : start + DECODED_CELLS]
            padded = np.zeros((DECODED_CELLS, codes.shape[1]), dtype=np.int32)
            padded[: len(part)] = part
            columns.read(self._decode_padded(padded), out[start : start + len(part)])

        starts = range(0, len(codes), DECODED_CELLS)
        for _ in map(run, starts) if len(starts) == 1 else self._pool.map(run, starts):
            pass
        return out

    def warm_up(self) -> float:
        """Run every fixed shape once, then measure the speed on synthetic cells, in cells per second."""
        config = self._config
        warm_shapes(self._run_padded, config.num_genes, config.num_tokens)
        rows = synthetic_rows(config.num_genes)
        self.run_both(rows)  # caches the offset sum of its gene set
        started = time.perf_counter()
        self.run_both(rows)
        return len(rows) / (time.perf_counter() - started)
