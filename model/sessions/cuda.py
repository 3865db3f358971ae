"""The session for a GPU, on PyTorch: half-precision products, CUDA graphs, copies while it computes.

It computes blocks of one fixed size, so that a cell's result does not depend on the other cells in a call. On the CPU
the same code runs in float32, without graphs: slower than ONNX Runtime, for tests. Letters: B cells, R components, H
width of the view head, N tokens, D width.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.streams import Device, Fetched
from scpalm.model.read_out.corrections import Corrections
from scpalm.model.sessions.base import info_of, network_config, read_basis
from scpalm.model.sessions.cuda_parts import DecoderPart, EncoderPart, ReadOutPart
from scpalm.model.sessions.session import CPU_BATCH_CELLS, Encoded, SessionInfo, Speed, Tokens
from scpalm.model.sessions.shapes import synthetic_rows
from scpalm.model.sessions.staging import BlockShape, Slot, blocks, order_by_gene_set
from scpalm.model.sessions.torchscript import torch_device

# A GPU computes at least this many tokens at once; fewer leave parts of it idle.
_TOKENS_OF_BLOCK = 16384
_ENTRIES_OF_BLOCK = 1 << 20
_CELLS_ON_CPU, _ENTRIES_ON_CPU = 16, 1 << 16
# float16, not bfloat16: its three more bits keep 99.9 % of the codes in place of 99.3 % (training/LOG.md). A value that
# overflows is not finite, and the worker refuses such rows.
_HALF = torch.float16
# Numbers of cells whose speed is measured, and the share of the best speed that a batch must reach.
_BATCHES = (64, 256, 512, 1024, 2048, 4096, 8192)
_GOOD_SHARE = 0.95


def block_shape(config: NetworkConfig, *, on_gpu: bool) -> BlockShape:
    """The size of a network's blocks: a power of two of cells, depending only on its number of tokens."""
    if not on_gpu:
        return BlockShape(_CELLS_ON_CPU, max(config.num_genes, _ENTRIES_ON_CPU))
    cells = 16
    while cells * config.num_tokens < _TOKENS_OF_BLOCK:
        cells *= 2
    return BlockShape(cells, max(config.num_genes, _ENTRIES_OF_BLOCK))


class CudaSession:
    """Implements `Session` for a GPU.

    Args:
        bundle: the model.
        device: ``auto``, ``cuda``, ``cuda:n`` or ``cpu``.
        dtype: precision of the matrix products and attention. Default: float16 on a GPU, float32 on the CPU. The
            read-out f, the distances to the codes, norms and sums are always float32.

    Raises BundleError if a file of the bundle is missing or damaged, ValueError for an unknown device.

    Example:
        >>> session = CudaSession(bundle, device="cuda:0")
        >>> session.encode(rows).embedding.shape
        (4096, 384)
    """

    def __init__(self, bundle: Bundle, *, device: str = "auto", dtype: torch.dtype | None = None) -> None:
        self._config = config = network_config(bundle)
        self._device = Device(torch_device(device))
        self._bundle, self._dtype = bundle, dtype or (_HALF if self._device.on_gpu else torch.float32)
        self._info = info_of(config, runtime="torch", device=str(self._device.device))
        self._corrections = Corrections(read_basis(bundle, config))
        self.shape = block_shape(config, on_gpu=self._device.on_gpu)
        self._lock = threading.Lock()  # of the buffers
        with self._on_device():
            self._slots = [Slot(self._device, self.shape) for _ in range(2)]
            self._read_out = ReadOutPart(bundle, config, self._device, self.shape, self._slots)
            self._encoder = EncoderPart(bundle, config, self._device, self.shape, self._dtype)
        self._decoder: DecoderPart | None = None  # many services never impute

    @property
    def info(self) -> SessionInfo:
        return self._info

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Compute on the session's stream. Products of half-precision numbers are summed in float32."""
        options = torch.backends.cuda.matmul
        names = ("allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")
        with self._lock:
            before = [getattr(options, name) for name in names]
            try:
                for name in names:
                    setattr(options, name, False)
                with self._device.computing():
                    yield
            finally:
                for name, value in zip(names, before, strict=True):
                    setattr(options, name, value)

    def encode(self, rows: Rows, *, tokens: bool | NDArray[np.bool_] = True) -> Encoded:
        """See `scpalm.model.sessions.session.Session`."""
        order = order_by_gene_set(rows)
        wanted = np.flatnonzero(np.broadcast_to(tokens, len(rows))[order])  # positions in this order
        with self._on_device():
            embedding, log_length = self._embed(rows, order)
            arriving = [self._device.fetch(values) for values in (embedding, log_length)]
            if len(wanted):
                f = embedding[:, : self._config.components]
                arriving += [self._device.fetch(values) for values in self._encode(f, log_length, wanted)]
            # The embedding is copied while the device encodes.
            embedded, length = (_placed(fetched, order, len(rows)) for fetched in arriving[:2])
            found = None
            if len(wanted):
                h, codes = (_placed(fetched, order[wanted], len(rows)) for fetched in arriving[2:])
                found = Tokens(h, codes)
        return Encoded(rows, embedded, length, self._config.components, found)

    def _embed(self, rows: Rows, order: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Embedding ``[B, R + H]`` and log length ``[B, 1]`` of the ordered cells, on the device."""
        embedding = self._device.empty((len(rows), self._info.embedding_width))
        log_length = self._device.empty((len(rows), 1))
        for number, block in enumerate(blocks(rows, order, self.shape)):
            slot = self._slots[number % 2]  # one is filled while the other is read
            slot.send(rows, block)
            self._read_out.run(slot, self._corrections.of(rows.gene_sets[block.gene_set]))
            slot.release()
            num_cells = block.stop - block.start
            embedding[block.start : block.stop] = self._read_out.embedding[:num_cells]
            log_length[block.start : block.stop] = self._read_out.log_length[:num_cells]
        return embedding, log_length

    def _encode(self, f: Tensor, log_length: Tensor, wanted: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """h_C ``[chosen, D]`` and codes ``[chosen, N]`` of chosen cells, on the device."""
        part = self._encoder
        h = self._device.empty((len(wanted), self._config.width))
        codes = self._device.empty((len(wanted), self._config.num_tokens), torch.int32)
        every = len(wanted) == len(f)
        index = None if every else self._device.put(wanted)
        for start, stop in self._cuts(len(wanted)):
            chosen = slice(start, stop) if index is None else index[start:stop]
            part.f[: stop - start] = f[chosen]
            part.log_length[: stop - start] = log_length[chosen]
            part.run()
            h[start:stop] = part.h[: stop - start]
            codes[start:stop] = part.codes[: stop - start]
        return h, codes

    def _cuts(self, num_cells: int) -> Iterator[tuple[int, int]]:
        for start in range(0, num_cells, self.shape.cells):
            yield start, min(start + self.shape.cells, num_cells)

    def impute(self, encoded: Encoded, genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `scpalm.model.sessions.session.Session`."""
        sent = [np.ascontiguousarray(array) for array in (encoded.codes, encoded.f, encoded.log_length)]
        out = np.empty((len(encoded), len(genes)), dtype=np.float32)
        arriving: deque[tuple[slice, Fetched]] = deque()
        with self._on_device():
            if self._decoder is None:
                self._decoder = DecoderPart(self._bundle, self._config, self._device, self.shape, self._dtype)
            part, chosen = self._decoder, self._device.put(genes)
            for start, stop in self._cuts(len(encoded)):
                for buffer, array in zip((part.codes, part.f, part.log_length), sent, strict=True):
                    buffer[: stop - start] = self._device.put(array[start:stop])
                arriving.append((slice(start, stop), self._device.fetch(part.run(chosen, stop - start))))
                if len(arriving) == 2:  # one is copied while the next one is computed
                    _take(arriving, out)
            while arriving:
                _take(arriving, out)
        return out

    def warm_up(self) -> Speed:
        """Record the graphs, then measure batches of synthetic cells."""
        with self._on_device():
            for slot in self._slots:
                self._read_out.warm_up(slot, self.shape.capacities)
        if not self._device.on_gpu:
            return Speed(self.measure((64,))[64], CPU_BATCH_CELLS)
        return smallest_good_batch(self.measure(_BATCHES))

    def measure(
        self, sizes: Sequence[int], *, expressed: int = 1000, tokens: bool = True, repeats: int = 3
    ) -> Mapping[int, float]:
        """Cells per second of calls with so many cells, the best of a few, each with ``expressed`` genes a cell."""
        few = synthetic_rows(self._config.num_genes, expressed=expressed)
        speeds = {}
        for size in sizes:
            rows = Rows.concat([few] * -(-size // len(few))).slice(0, size)
            self.encode(rows, tokens=tokens)
            seconds = []
            for _ in range(repeats):
                started = time.perf_counter()
                self.encode(rows, tokens=tokens)
                seconds.append(time.perf_counter() - started)
            speeds[size] = size / min(seconds)
        return speeds


def smallest_good_batch(speeds: Mapping[int, float]) -> Speed:
    """The best speed, and the smallest batch that nearly has it. ``speeds``: cells per second by batch size."""
    best = max(speeds.values())
    return Speed(best, min(size for size, speed in speeds.items() if speed >= _GOOD_SHARE * best))


def _placed(fetched: Fetched, rows: NDArray[np.int64], count: int) -> NDArray:  # type: ignore[type-arg]
    """Values of some rows -> an array of all ``count`` rows, 0 where there is none."""
    values = fetched.numpy()
    if len(rows) == count and (rows[1:] > rows[:-1]).all():  # in order already
        return values
    out = np.zeros((count, values.shape[1]), dtype=values.dtype)
    out[rows] = values
    return out


def _take(arriving: deque[tuple[slice, Fetched]], out: NDArray[np.float32]) -> None:
    part, fetched = arriving.popleft()
    out[part] = fetched.numpy()
