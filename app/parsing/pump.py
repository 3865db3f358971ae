"""Moves the parts of an upload from the thread of a parser to the event loop, as far as memory allows."""

from __future__ import annotations

import asyncio
from pathlib import Path

from scpalm.app.parsing.commands import command
from scpalm.app.parsing.process import ParserProcess
from scpalm.app.parsing.upload import Upload, UploadHead
from scpalm.app.parsing.wire import PartReader
from scpalm.app.storage.memory_budget import MemoryBudget, ReadAhead
from scpalm.model.genes.prepare import Prepared

Group = tuple[UploadHead | Prepared, ...]


class Pump:
    """The parts of one upload. Create it on the event loop.

    Args:
        upload: what to read.
        num_genes: genes of the vocabulary.
        max_cells: most cells of an upload; None for no limit.
        memory: budget of the parts that the service holds.

    Attributes:
        received: the parts of each message; None at the end.
    """

    def __init__(self, upload: Upload, num_genes: int, max_cells: int | None, memory: MemoryBudget) -> None:
        self.received: asyncio.Queue[Group | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._upload, self._num_genes, self._max_cells = upload, num_genes, max_cells
        self._ahead = ReadAhead(memory)
        self._num_received = 0

    def run(self, process: ParserProcess, scratch: Path) -> None:
        """Read the upload; blocks. Raises the errors of the process."""
        parts = PartReader(self._num_genes, self._max_cells)
        for number, message in enumerate(process.stream(command("parse", self._upload, scratch))):
            group = parts.read(message)
            if number >= self._num_received:  # a second process repeats what the first one has sent
                self._num_received = number + 1
                for part in group:
                    if isinstance(part, Prepared):
                        self._ahead.add(part.rows.value, part.rows.num_bytes)
                self._loop.call_soon_threadsafe(self.received.put_nowait, group)

    def stop(self) -> None:
        """Stop to wait for memory."""
        self._ahead.stop()

    def end(self, _: object) -> None:
        """Note that no more parts come."""
        self.received.put_nowait(None)
