"""Common part of both runtimes: splits rows into fixed shapes, runs them on a few threads, and joins the results.

Letters: B cells, R components, H width of the view head, N tokens, D width.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.genes.rows import Rows
from scpalm.model.network.config import NetworkConfig
from scpalm.model.read_out.basis import Basis
from scpalm.model.read_out.corrections import Corrections
from scpalm.model.sessions.gene_head import GeneReadOut
from scpalm.model.sessions.session import Encoded, SessionInfo, Speed, Tokens
from scpalm.model.sessions.shapes import CPU_SHAPES, GPU_SHAPES, Padded, cut, split, synthetic_rows, warm_shapes

WEIGHTS_FILE = "weights.safetensors"
Item = TypeVar("Item")
Result = TypeVar("Result")
Scalar = TypeVar("Scalar", np.float32, np.int32)


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


def info_of(config: NetworkConfig, *, runtime: str, device: str) -> SessionInfo:
    """Device and sizes of a session."""
    return SessionInfo(
        runtime,
        device,
        config.components + config.view_width,
        config.components,
        config.width,
        config.num_tokens,
        config.num_codes,
        config.num_genes,
    )


def read_basis(bundle: Bundle, config: NetworkConfig) -> Basis:
    """The components of a bundle. Raises BundleError if they are missing or do not fit the network."""
    path = bundle.file(WEIGHTS_FILE)
    try:
        with safe_open(path, framework="numpy") as tensors:
            names = [name for name in tensors.keys() if name.startswith("basis.")]  # noqa: SIM118 -- not iterable
            basis = Basis.from_tensors({name: tensors.get_tensor(name) for name in names})
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BundleError(f"{path} has no valid components ({error}). Export the bundle again.") from error
    if basis.components.shape != (config.num_genes, config.components):
        raise BundleError(f"{path}: the components have shape {basis.components.shape}. Export the bundle again.")
    return basis


class BucketedSession(ABC):
    """A session over fixed batch shapes.

    Each batch runs on one thread, so results do not depend on how a matrix product is divided among threads.
    """

    def __init__(self, bundle: Bundle, *, runtime: str, device: str, threads: int | None) -> None:
        self._config = network_config(bundle)
        self._corrections = Corrections(read_basis(bundle, self._config))
        self._shapes = CPU_SHAPES if device == "cpu" else GPU_SHAPES
        self._pool = ThreadPoolExecutor(threads or available_cores(), thread_name_prefix="scpalm-session")
        config = self._config
        self._bundle = bundle
        self._gene_head: GeneReadOut | None = None
        self._info = info_of(config, runtime=runtime, device=device)

    @property
    def info(self) -> SessionInfo:
        return self._info

    @abstractmethod
    def _embed_padded(self, batch: Padded) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Embedding ``[B, R + H]`` and log length ``[B, 1]`` of a batch of fixed shape, including padding rows."""

    @abstractmethod
    def _encode_padded(
        self, f: NDArray[np.float32], log_length: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """``h_C [B, D]`` and codes ``[B, N]`` of a batch of fixed size, including padding rows."""

    def encode(self, rows: Rows, *, tokens: bool | NDArray[np.bool_] = True) -> Encoded:
        """See `scpalm.model.sessions.session.Session`."""
        embedding = np.empty((len(rows), self._info.embedding_width), dtype=np.float32)
        log_length = np.empty((len(rows), 1), dtype=np.float32)
        # Run the largest batches first, so that the threads finish at about the same time.
        batches = sorted(split(rows, self._corrections, self._shapes), key=lambda batch: -batch.gene_index.size)
        for batch, (part, length) in zip(batches, self._spread(self._embed_padded, batches), strict=True):
            embedding[batch.rows] = part[: len(batch.rows)]
            log_length[batch.rows] = length[: len(batch.rows)]
        chosen = np.flatnonzero(np.broadcast_to(tokens, len(rows)))
        found = self._encode(embedding[:, : self._config.components], log_length, chosen) if len(chosen) else None
        return Encoded(rows, embedding, log_length, self._config.components, found)

    def _encode(self, f: NDArray[np.float32], log_length: NDArray[np.float32], chosen: NDArray[np.int64]) -> Tokens:
        h = np.zeros((len(f), self._config.width), dtype=np.float32)
        codes = np.zeros((len(f), self._config.num_tokens), dtype=np.int32)

        def run(part: tuple[int, NDArray[np.int64]]) -> None:
            size, members = part
            inputs = [np.zeros((size, array.shape[1]), dtype=np.float32) for array in (f, log_length)]
            for padded, array in zip(inputs, (f, log_length), strict=True):
                padded[: len(members)] = array[members]
            one, other = self._encode_padded(inputs[0], inputs[1])
            h[members], codes[members] = one[: len(members)], other[: len(members)]

        for _ in self._spread(run, list(cut(chosen, self._shapes.for_encoder))):
            pass
        return Tokens(h, codes)

    def _spread(self, run: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        return map(run, items) if len(items) == 1 else self._pool.map(run, items)

    @abstractmethod
    def _decode_padded(
        self, codes: NDArray[np.int32], f: NDArray[np.float32], log_length: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Input of the gene head, ``[B, N, D]``, of a batch of fixed size. Raises BundleError."""

    def impute(self, encoded: Encoded, genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `scpalm.model.sessions.session.Session`."""
        codes, f, log_length = encoded.codes, encoded.f, encoded.log_length
        if self._gene_head is None:
            self._gene_head = GeneReadOut.load(self._bundle, self._config)
        columns = self._gene_head.columns(genes)
        out = np.empty((len(encoded), len(genes)), dtype=np.float32)
        size = self._shapes.decoded

        def run(start: int) -> None:
            # Pad with zeros to a fixed shape, so that a cell's values do not depend on the other cells.
            part = slice(start, start + size)
            decoded = self._decode_padded(
                _padded(codes[part], size), _padded(f[part], size), _padded(log_length[part], size)
            )
            columns.read(decoded, out[part])

        for _ in self._spread(run, range(0, len(encoded), size)):
            pass
        return out

    def warm_up(self) -> Speed:
        """Run every fixed shape once, then measure the speed on synthetic cells."""
        config = self._config
        warm_shapes(self._embed_padded, config.num_genes, config.components, self._shapes)
        for size in self._shapes.for_encoder:
            self._encode_padded(np.zeros((size, config.components), np.float32), np.zeros((size, 1), np.float32))
        rows = synthetic_rows(config.num_genes)
        self.encode(rows)  # keeps the correction for its gene set
        started = time.perf_counter()
        self.encode(rows)
        return Speed(len(rows) / (time.perf_counter() - started))


def _padded(part: NDArray[Scalar], size: int) -> NDArray[Scalar]:
    padded = np.zeros((size, part.shape[1]), dtype=part.dtype)
    padded[: len(part)] = part
    return padded
