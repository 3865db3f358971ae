"""How cells travel to a device: blocks of cells in page-locked memory, copied on a separate stream.

Letters: B cells of a block, E entries of a block, R components.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scpalm.model.genes.rows import Rows
from scpalm.model.network.streams import Device

_FEWEST_ENTRIES = 1 << 12


@dataclass(frozen=True)
class BlockShape:
    """The fixed sizes of a block.

    Attributes:
        cells: B, most cells of a block.
        entries: most expressed genes of all its cells.
    """

    cells: int
    entries: int

    @property
    def capacities(self) -> tuple[int, ...]:
        """The values of E: powers of two, the last one large enough for any block."""
        found = [_FEWEST_ENTRIES]
        while found[-1] < self.entries:
            found.append(2 * found[-1])
        return tuple(found)

    def capacity_for(self, num_entries: int) -> int:
        """The smallest capacity that holds so many entries."""
        return next(capacity for capacity in self.capacities if capacity >= num_entries)


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive cells of one gene set.

    Attributes:
        start, stop: positions among the cells, in the order of `order_by_gene_set`.
        rows: positions among the input rows.
        gene_set: which gene set.
    """

    start: int
    stop: int
    rows: NDArray[np.int64]
    gene_set: int


def order_by_gene_set(rows: Rows) -> NDArray[np.int64]:
    """``[B]`` positions of the cells, those of one gene set together."""
    return np.argsort(rows.gene_set_of_row, kind="stable")


def blocks(rows: Rows, order: NDArray[np.int64], shape: BlockShape) -> Iterator[Block]:
    """Cut the ordered cells into blocks of one gene set that fit a shape."""
    sets = rows.gene_set_of_row[order]
    ends = np.cumsum(rows.lengths()[order])
    start = 0
    while start < len(order):
        before = int(ends[start - 1]) if start else 0
        fit = int(np.searchsorted(ends, before + shape.entries, side="right"))
        same = start + int(np.searchsorted(sets[start:], sets[start], side="right"))
        stop = max(start + 1, min(start + shape.cells, fit, same))
        yield Block(start, stop, order[start:stop], int(sets[start]))
        start = stop


class Slot:
    """A block that is copied to the device: buffers on both sides, always at the same addresses.

    The entries of cell i are ``offsets[i]`` to ``offsets[i + 1]``. CUDA kernels read all E entries, whatever the last
    offset is. So the entries behind those of the block, which have no meaning, are divided among the unused cells and B
    further ones.

    Attributes:
        capacity: E, the capacity for the block that was sent last.
        offsets: ``[2 B + 1]`` int32 on the device.
    """

    def __init__(self, device: Device, shape: BlockShape) -> None:
        self._device, self._shape = device, shape
        self.capacity = most = shape.capacities[-1]
        sizes = {
            "gene_index": ((most,), torch.int32),
            "value": ((most,), torch.float32),
            "offsets": ((2 * shape.cells + 1,), torch.int32),
        }
        self._host = {
            name: torch.empty(size, dtype=dtype, pin_memory=device.on_gpu) for name, (size, dtype) in sizes.items()
        }
        self._gene_index, self._value, self.offsets = (device.empty(*size).zero_() for size in sizes.values())
        if device.on_gpu:
            self._sent, self._read = torch.cuda.Event(), torch.cuda.Event()

    @property
    def gene_index(self) -> Tensor:
        """``[E]`` int32 on the device."""
        return self._gene_index[: self.capacity]

    @property
    def value(self) -> Tensor:
        """``[E]`` float32 log1p CP10K on the device."""
        return self._value[: self.capacity]

    def send(self, rows: Rows, block: Block) -> None:
        """Copy a block to the device. What is computed next waits for it."""
        if self._device.on_gpu:
            self._sent.synchronize()  # the host's buffers may be written again
        num_entries = self._fill(rows, block)
        pairs = [
            (self._gene_index[:num_entries], self._host["gene_index"][:num_entries]),
            (self._value[:num_entries], self._host["value"][:num_entries]),
            (self.offsets, self._host["offsets"]),
        ]
        if not self._device.on_gpu:
            for to, source in pairs:
                to.copy_(source)
            return
        copy_in = self._device.copy_in
        copy_in.wait_event(self._read)  # the device's buffers may be written again
        with torch.cuda.stream(copy_in):
            for to, source in pairs:
                to.copy_(source, non_blocking=True)
            self._sent.record(copy_in)
        self._device.compute.wait_event(self._sent)

    def set_empty(self, capacity: int) -> None:
        """Make a block without cells, to warm up with."""
        self.capacity = capacity
        self.offsets.copy_(torch.from_numpy(_shares(0, capacity, len(self.offsets))))

    def release(self) -> None:
        """Call when the block's computation is queued: its buffers are free once that is done."""
        if self._device.on_gpu:
            self._read.record(self._device.compute)

    def _fill(self, rows: Rows, block: Block) -> int:
        """Write the block to the host's buffers; returns its number of entries."""
        genes, values, offsets = (self._host[name].numpy() for name in ("gene_index", "value", "offsets"))
        lengths = rows.indptr[block.rows + 1] - rows.indptr[block.rows]
        ends = np.cumsum(lengths)
        count, total = len(block.rows), int(ends[-1])
        self.capacity = self._shape.capacity_for(total)
        offsets[0], offsets[1 : count + 1] = 0, ends
        offsets[count:] = _shares(total, self.capacity, len(offsets) - count)
        first = int(rows.indptr[block.rows[0]])
        if block.rows[-1] - block.rows[0] + 1 == count:  # consecutive rows: one copy
            genes[:total], values[:total] = rows.gene_index[first : first + total], rows.value[first : first + total]
        else:
            for row, end, length in zip(block.rows, ends, lengths, strict=True):
                source = slice(rows.indptr[row], rows.indptr[row] + length)
                genes[end - length : end], values[end - length : end] = rows.gene_index[source], rows.value[source]
        return total


def _shares(start: int, stop: int, count: int) -> NDArray[np.int32]:
    return np.linspace(start, stop, count).astype(np.int32)


class Step:
    """A function of fixed buffers, called again and again: on a GPU it is recorded once as a CUDA graph."""

    def __init__(self, device: Device, function: Callable[[], None]) -> None:
        self._device, self._function = device, function
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Queue the function on the stream to compute on."""
        if not self._device.on_gpu:
            self._function()
            return
        if self._graph is None:
            self._graph = self._record()
        self._graph.replay()

    def _record(self) -> torch.cuda.CUDAGraph:
        for _ in range(2):  # libraries choose their kernels and reserve memory in the first calls
            self._function()
        self._device.compute.synchronize()
        graph = torch.cuda.CUDAGraph()
        # Other threads may allocate memory meanwhile.
        with torch.cuda.graph(graph, stream=self._device.compute, capture_error_mode="thread_local"):
            self._function()
        return graph
