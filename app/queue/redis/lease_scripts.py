"""The lease mechanism over Redis, shared by requests (`scripts`) and jobs (`scpalm.app.jobs.ledger.redis_scripts`).

A lease is an entry of a stream that one consumer of a group has read and not acknowledged. Redis then keeps, per entry,
the holder, the time since its last sign of life, and the number of deliveries:

- grant: the holder reads the entry, which is delivery 1.
- renew: the holder claims its entry again, at least RENEWALS_PER_LEASE times per lease. That is not a delivery.
- lapse and take over: an entry that was not renewed for one lease goes to the next holder that asks, as one more
  delivery. No process can renew while Redis is away. So after a pause of Redis, or of all its clients, no entry
  is taken over for one lease.
- come back: a former holder that asks for its entry again has not died, and its delivery is not counted.
- limit: after MAX_DELIVERIES the entry becomes a dead letter instead.
- finish: the entry is deleted. Only its present holder may do that, so a late result of a former holder is refused.

What differs stays apart. An entry of requests carries the work, and workers wait for it with XREADGROUP. A job waits in
a sorted set until a process that serves its model takes it, so an entry exists only while the job runs; the entry just
names the job. A dead request is copied to a stream, since its caller gets an error; a dead job stays where it is,
failed, and can be put back. Services renew jobs from the event loop, workers renew requests from a thread.
"""

from __future__ import annotations

from typing import Any

GROUP = "workers"

# Every process that checks the leases does so more often than this. See `pause_ms`.
_LONGEST_SILENCE_MS = 1500


def pause_ms(lease_seconds: float) -> int:
    """Length of silence after which Redis counts as having been away. A shorter pause leaves time to renew a lease."""
    return max(_LONGEST_SILENCE_MS, int(1000 * lease_seconds / 2))


# First lines of scripts. A full Redis refuses scripts that add work as a whole; it must run those that end work.
REFUSED_WHEN_FULL = "#!lua\n"
RUN_WHEN_FULL = "#!lua flags=allow-oom\n"

LEASES = """
local function lease_of(stream, group, id)  -- holder, idle ms, deliveries; nil when the entry is not leased
  local found = redis.call('XPENDING', stream, group, id, id, 1)[1]
  if found then return found[2], found[3], found[4] end
end
local function count_again(stream, group, holder, id, deliveries)  -- set the number of deliveries, default 1
  redis.call('XCLAIM', stream, group, holder, 0, id, 'RETRYCOUNT', deliveries or 1, 'JUSTID')
end
local function grant(stream, group, holder, deliveries, fields)  -- a new entry, leased at once; its id
  local id = redis.call('XADD', stream, '*', unpack(fields))
  redis.call('XREADGROUP', 'GROUP', group, holder, 'COUNT', 1, 'STREAMS', stream, '>')
  count_again(stream, group, holder, id, deliveries)
  return id
end
local function renew(stream, group, holder, id, idle_ms)  -- false when another holds it; fresh leases are left alone
  local owner, idle = lease_of(stream, group, id)
  if owner ~= holder then return false end
  if idle >= idle_ms then redis.call('XCLAIM', stream, group, holder, 0, id, 'JUSTID') end
  return true
end
local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end
local function was_away(pulse, pause, lease_ms)  -- no request for longer than `pause`, less than a lease ago
  local now, found = now_ms(), redis.call('HMGET', pulse, 'at', 'back')
  local at, back = tonumber(found[1] or now), tonumber(found[2] or 0)
  local jumped = now - at > pause or now < at  -- the clock of Redis may be set, too
  if jumped or back > now then back = now end
  -- Not at every call: it would fill the append-only file.
  if jumped or not found[1] or now - at > pause / 4 then redis.call('HSET', pulse, 'at', now, 'back', back) end
  return now - back < lease_ms
end
local function take_over(stream, group, holder, lease_ms)  -- one lapsed entry: id, fields, deliveries; nil for none
  while true do
    local found = redis.call('XPENDING', stream, group, 'IDLE', lease_ms, '-', '+', 1)[1]
    if not found then return nil end
    local id, former = found[1], found[2]
    local got = redis.call('XCLAIM', stream, group, holder, lease_ms, id)
    if #got > 0 then
      local names = redis.call('HGET', stream .. ':former', id) or ''
      redis.call('HSET', stream .. ':former', id, names .. former .. ' ')
      local _, _, deliveries = lease_of(stream, group, id)
      return id, got[1][2], deliveries
    end
    redis.call('XACK', stream, group, id)  -- an entry that was deleted
  end
end
local function came_back(stream, group, holder, id)  -- true when it held the entry before, and another does now
  local names = redis.call('HGET', stream .. ':former', id)
  local first, last = string.find(names or '', holder .. ' ', 1, true)
  local present, _, deliveries = lease_of(stream, group, id)
  if not first or not present or present == holder then return false end
  redis.call('HSET', stream .. ':former', id, string.sub(names, 1, first - 1) .. string.sub(names, last + 1))
  if deliveries > 1 then count_again(stream, group, present, id, deliveries - 1) end
  return true
end
local function finish(stream, group, id)  -- false when the entry is gone already
  if redis.call('XDEL', stream, id) == 0 then return false end
  redis.call('XACK', stream, group, id)
  redis.call('HDEL', stream .. ':former', id)
  return true
end
"""


def leave_group(client: Any, streams: list[str], holder: str) -> None:
    """Remove a holder from the groups, unless it has leases left, which would be lost. Raises RedisError."""
    for stream in streams:
        if not client.xpending_range(stream, GROUP, "-", "+", 1, consumername=holder):
            client.xgroup_delconsumer(stream, GROUP, holder)
