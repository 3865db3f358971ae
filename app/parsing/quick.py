"""Whether a command of a parser process is a small one, by the CPU time that it takes."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from scpalm.app.parsing.process import ParserProcess

T = TypeVar("T")

# A command that takes more CPU time counts as large, regardless of the size of its body: a small file may unpack to a
# huge one. Not wall time: on a busy machine, everything takes long.
_QUICK_CPU_SECONDS = 1.0
_LOOK_EVERY_SECONDS = 0.2


async def takes_long(process: ParserProcess, command: asyncio.Future[T]) -> bool:
    """Wait until a command has ended, or has taken so much CPU time that it counts as large."""
    while not (await asyncio.wait([command], timeout=_LOOK_EVERY_SECONDS))[0]:
        if process.cpu_seconds_of_command() > _QUICK_CPU_SECONDS:
            return True
    return False
