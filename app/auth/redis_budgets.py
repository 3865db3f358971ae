"""Buckets in Redis, shared by every replica. Redis' own clock refills them, so replicas' clocks do not matter."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from redis.exceptions import RedisError

from scpalm.app.auth.budgets import LEAST_LEVEL, Charge
from scpalm.app.errors import NotReadyError
from scpalm.app.storage.redis import connect_async

log = logging.getLogger("scpalm.keys")

# Longest that a request waits for its budget, and how long the next ones are refused without asking after a failure.
COMMAND_SECONDS = 1.0
RETRY_SECONDS = 0.5

# KEYS buckets; ARGV least level, then per_minute and amount of each bucket -> levels before the charge, as text.
# A bucket is a hash (level, at) that expires once it would be full again. allow-oom: a full Redis still keeps limits.
_CHARGE = """#!lua flags=allow-oom
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local levels, empty = {}, false
for i, key in ipairs(KEYS) do
  local per_minute = tonumber(ARGV[2 * i])
  local found = redis.call('HMGET', key, 'level', 'at')
  local level = per_minute
  if found[1] then
    level = math.min(per_minute, tonumber(found[1]) + math.max(0, now - tonumber(found[2])) * per_minute / 60)
  end
  levels[i] = level
  if level < tonumber(ARGV[1]) then empty = true end
end
local answer = {}
for i, key in ipairs(KEYS) do
  local per_minute, amount = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  answer[i] = string.format('%.17g', levels[i])
  if amount ~= 0 and not empty then
    local level = levels[i] - amount
    redis.call('HSET', key, 'level', string.format('%.17g', level), 'at', string.format('%.17g', now))
    redis.call('PEXPIRE', key, math.ceil((per_minute - level) / per_minute * 60000) + 1000)
  end
end
return answer
"""


class RedisBudgetStore:
    """See `scpalm.app.auth.budgets.BudgetStore`. Used from one event loop. Raises QueueError for a malformed URL."""

    def __init__(self, url: str) -> None:
        self._client: Any = connect_async(url, command_seconds=COMMAND_SECONDS)
        self._script = self._client.register_script(_CHARGE)
        self._retry_at = float("-inf")
        self._away = False

    async def charge(self, charges: Sequence[Charge]) -> list[float]:
        return await self._run(charges, LEAST_LEVEL)

    async def owe(self, charge: Charge) -> None:
        await self._run([charge], float("-inf"))

    async def close(self) -> None:
        await self._client.aclose()

    async def _run(self, charges: Sequence[Charge], least: float) -> list[float]:
        if time.monotonic() < self._retry_at:
            raise _unavailable()
        arguments = [number for charge in charges for number in (charge.per_minute, charge.amount)]
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                levels = await self._script(keys=[_name(charge) for charge in charges], args=[least, *arguments])
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            self._retry_at = time.monotonic() + RETRY_SECONDS
            if not self._away:
                log.error("budgets of API keys cannot be read from Redis: %s", str(error) or type(error).__name__)
            self._away = True
            raise _unavailable() from error
        self._away = False
        return [float(level) for level in levels]


def _unavailable() -> NotReadyError:
    return NotReadyError("Redis, which holds the budgets of API keys, cannot be reached.", retry_after=2)


def _name(charge: Charge) -> str:
    # One hash tag: a Redis cluster runs a script only on keys that are together. Names of keys are users' text.
    return f"scpalm:{{budgets}}:{charge.resource}:{hashlib.sha256(charge.key_name.encode()).hexdigest()}"
