"""Budgets of API keys: how many cells and bytes a key may send per minute.

Each budget is a token bucket that holds at most one minute's worth. One request may overdraw it: while the bucket holds
at least one cell (or byte) a request of any size is accepted, and then the key waits until it holds one again. The
library `limits` was considered: its strategies are windows, which cannot carry an overdraft into the next window.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from scpalm.app.auth.keys import ApiKey
from scpalm.app.errors import NotReadyError, RateLimitError
from scpalm.app.storage.urls import is_redis

Resource = Literal["cells", "bytes"]
# A bucket with less is empty. Not 0: a fraction of a cell refills at once, and would let every request in.
LEAST_LEVEL = 1.0


@dataclass(frozen=True)
class Charge:
    """An amount taken from one bucket.

    Attributes:
        resource: what is charged. key_name: whose bucket. per_minute: size of the bucket and its refill per minute.
        amount: 0 only reads the level.
    """

    resource: Resource
    key_name: str
    per_minute: int
    amount: int = 0


class BudgetStore(Protocol):
    """Where the buckets are kept. An unknown bucket is full."""

    async def charge(self, charges: Sequence[Charge]) -> list[float]:
        """Take each amount from its bucket; when one holds less than LEAST_LEVEL, take nothing at all.

        Returns the levels before the charge. Raises NotReadyError when the store cannot be reached.
        """
        ...

    async def owe(self, charge: Charge) -> None:
        """Take an amount regardless of the level. A negative amount goes back into the bucket. Raises NotReadyError."""
        ...

    async def close(self) -> None:
        """Close the connection."""
        ...


class Budgets:
    """Checks and charges the budgets of API keys. ``key`` is None if no key is required; then nothing is charged.

    Keys without budgets never query the store. While the store is unreachable, keys with budgets get NotReadyError
    (503): an outage must not lift the limits, and the queue is in the same Redis anyway.
    """

    def __init__(self, store: BudgetStore) -> None:
        self._store = store

    async def check(self, key: ApiKey | None) -> None:
        """Raise RateLimitError while a budget of the key is empty, and NotReadyError if the store is unreachable."""
        if key is not None and (charges := _charges(key)):
            _refuse_empty(charges, await self._store.charge(charges))

    async def charge_cells(self, key: ApiKey | None, num_cells: int) -> None:
        """Charge accepted cells. Raises RateLimitError, and charges nothing, while the budget is empty."""
        if key is not None and key.cells_per_minute is not None:
            charge = Charge("cells", key.name, key.cells_per_minute, num_cells)
            _refuse_empty([charge], await self._store.charge([charge]))

    async def refund_cells(self, key: ApiKey | None, num_cells: int) -> None:
        """Undo a charge of cells. Does nothing if the store is unreachable: the budget refills anyway."""
        if key is not None and key.cells_per_minute is not None:
            with contextlib.suppress(NotReadyError):
                await self._store.owe(Charge("cells", key.name, key.cells_per_minute, -num_cells))

    async def charge_bytes(self, key: ApiKey | None, num_bytes: int) -> None:
        """Charge received bytes, even beyond the budget. Raises NotReadyError if the store is unreachable."""
        if key is not None and key.bytes_per_minute is not None and num_bytes:
            await self._store.owe(Charge("bytes", key.name, key.bytes_per_minute, num_bytes))

    async def close(self) -> None:
        """Close the store."""
        await self._store.close()


class MemoryBudgetStore:
    """Buckets of this process. Used from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[Resource, str], tuple[float, float]] = {}  # level, and when it was that

    async def charge(self, charges: Sequence[Charge]) -> list[float]:
        levels = [self._level(charge) for charge in charges]
        if all(level >= LEAST_LEVEL for level in levels):
            for charge, level in zip(charges, levels, strict=True):
                self._set(charge, level - charge.amount)
        return levels

    async def owe(self, charge: Charge) -> None:
        self._set(charge, self._level(charge) - charge.amount)

    async def close(self) -> None:
        self._buckets.clear()

    def _level(self, charge: Charge) -> float:
        now = self._clock()
        level, since = self._buckets.get((charge.resource, charge.key_name), (float(charge.per_minute), now))
        return min(charge.per_minute, level + (now - since) * charge.per_minute / 60)

    def _set(self, charge: Charge, level: float) -> None:
        self._buckets[charge.resource, charge.key_name] = level, self._clock()


def open_budgets(url: str) -> Budgets:
    """Budgets in the Redis at ``url``, shared by every replica that uses it; in this process for other URLs."""
    if not is_redis(url):
        return Budgets(MemoryBudgetStore())
    from scpalm.app.auth.redis_budgets import RedisBudgetStore

    return Budgets(RedisBudgetStore(url))


def _charges(key: ApiKey) -> list[Charge]:
    limits: tuple[tuple[Resource, int | None], ...] = (
        ("cells", key.cells_per_minute),
        ("bytes", key.bytes_per_minute),
    )
    return [Charge(resource, key.name, limit) for resource, limit in limits if limit is not None]


def _refuse_empty(charges: Sequence[Charge], levels: Sequence[float]) -> None:
    for charge, level in zip(charges, levels, strict=True):
        if level < LEAST_LEVEL:
            wait = max(1, math.ceil((LEAST_LEVEL - level) * 60 / charge.per_minute))
            raise RateLimitError(
                f"The key '{charge.key_name}' has used its {charge.resource} for this minute. Try again in {wait} s.",
                retry_after=wait,
            )
