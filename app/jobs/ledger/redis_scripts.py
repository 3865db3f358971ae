"""Lua scripts of the job ledger in Redis. For leases see `scpalm.app.queue.redis.lease_scripts`.

All keys start with KEYS[1], ``scpalm:{jobs}:``:

- ``job:ID`` (hash), ``chunks:ID`` (set of chunk numbers)
- ``queued`` (sorted set by time of acceptance), ``ended`` (by time of the end), ``dead`` (dead letters, by time)
- ``running:MODEL`` (stream of leases, one per running job of that model)
- ``all`` and ``of:OWNER`` (sorted sets by time of acceptance)
- ``print:OWNER:FINGERPRINT`` and ``key:OWNER:KEY`` (job ids), ``keys:ID`` (set of the names of a job's keys)
- ``pulse`` (hash: when a process last asked, and when the last pause ended), ``running:MODEL:former`` (former holders)
- ``counts`` (hash: number of running and ended jobs by state), ``version``

Early releases recorded neither ``keys:ID`` nor the field ``request`` of a job. Version 1 had no ``version`` and kept
leases in the sorted set ``running``, by time of expiry. These leases are still honoured: when one expires, its job is
queued again. All times are milliseconds of the clock of Redis.
"""

from __future__ import annotations

from scpalm.app.queue.redis.lease_scripts import GROUP, LEASES, REFUSED_WHEN_FULL, RUN_WHEN_FULL

VERSION = 2

_COMMON = (
    LEASES
    + f"local group = '{GROUP}'"
    + """
local prefix = KEYS[1]
local now = now_ms()
local function job_of(id) return prefix .. 'job:' .. id end
local function lease_entry(id)  -- stream and entry of the lease of a running job; the entry is nil without a lease
  local found = redis.call('HMGET', job_of(id), 'model', 'lease')
  return prefix .. 'running:' .. (found[1] or ''), found[2] or nil
end
local function end_lease(id)
  local stream, entry = lease_entry(id)
  if entry then
    finish(stream, group, entry)
    redis.call('HDEL', job_of(id), 'lease')
    redis.call('HINCRBY', prefix .. 'counts', 'running', -1)
  end
  redis.call('ZREM', prefix .. 'running', id)
end
local function close(id, state, error)
  end_lease(id)
  redis.call('ZREM', prefix .. 'queued', id)
  redis.call('HSET', job_of(id), 'state', state, 'error', error, 'ended', now)
  redis.call('ZADD', prefix .. 'ended', now, id)
  redis.call('HINCRBY', prefix .. 'counts', state, 1)
end
local function queue_again(id)
  end_lease(id)
  redis.call('HSET', job_of(id), 'state', 'queued')
  redis.call('ZADD', prefix .. 'queued', redis.call('HGET', job_of(id), 'created'), id)
end
local function is_running(id, attempt)
  local found = redis.call('HMGET', job_of(id), 'state', 'attempt')
  return found[1] == 'running' and found[2] == attempt
end
"""
)

# KEYS prefix; ARGV version -> version of the ledger; a new ledger gets the given one
CHECK_VERSION = (
    RUN_WHEN_FULL
    + """
redis.call('SET', KEYS[1] .. 'version', ARGV[1], 'NX')
return redis.call('GET', KEYS[1] .. 'version')
"""
)

_FIND = """
local function remember(owner, key, id)  -- the key stands for this job from now on
  if key == '' then return end
  local name = prefix .. 'key:' .. owner .. ':' .. key
  local before = redis.call('GET', name)
  if before and before ~= id then redis.call('SREM', prefix .. 'keys:' .. before, name) end
  redis.call('SET', name, id)
  redis.call('SADD', prefix .. 'keys:' .. id, name)
end
local function find(owner, print, request, key)  -- id of the job of the same request or nil; true if the key is taken
  local known = key ~= '' and redis.call('GET', prefix .. 'key:' .. owner .. ':' .. key)
  if known then
    local found = redis.call('HMGET', job_of(known), 'state', 'request', 'fingerprint')
    if found[1] then
      if found[2] ~= request and (found[2] or found[3] ~= print) then return nil, true end
      if found[1] ~= 'failed' and found[1] ~= 'cancelled' then return known end
    end
  end
  known = redis.call('GET', prefix .. 'print:' .. owner .. ':' .. print)
  if not known then return nil end
  local state = redis.call('HGET', job_of(known), 'state')
  if not state or state == 'failed' or state == 'cancelled' then return nil end
  remember(owner, key, known)
  return known
end
"""

# ARGV owner fingerprint request key -> {id or '', 1 if the key stands for another request}. owner and key are hashed
FIND = (
    RUN_WHEN_FULL
    + _COMMON
    + _FIND
    + """
local known, taken = find(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return {known or '', taken and 1 or 0}
"""
)

# ARGV owner fingerprint request key id manifest model name -> like FIND. name is the owner's name
ADD = (
    REFUSED_WHEN_FULL
    + _COMMON
    + _FIND
    + """
local owner, id = ARGV[1], ARGV[5]
local known, taken = find(owner, ARGV[2], ARGV[3], ARGV[4])
if known or taken then return {known or '', taken and 1 or 0} end
redis.call('HSET', job_of(id), 'id', id, 'owner', owner, 'fingerprint', ARGV[2], 'request', ARGV[3],
  'manifest', ARGV[6], 'model', ARGV[7], 'name', ARGV[8], 'state', 'queued', 'attempt', 0, 'rows_done', 0,
  'deaths', 0, 'created', now)
redis.call('SET', prefix .. 'print:' .. owner .. ':' .. ARGV[2], id)
remember(owner, ARGV[4], id)
redis.call('ZADD', prefix .. 'queued', now, id)
redis.call('ZADD', prefix .. 'all', now, id)
redis.call('ZADD', prefix .. 'of:' .. owner, now, id)
return {id, 0}
"""
)

# ARGV holder lease_ms max_deliveries died pause_ms model ... -> id, or nil. Jobs with an expired lease come first.
TAKE = (
    RUN_WHEN_FULL
    + _COMMON
    + """
local holder, lease_ms, max_deliveries = ARGV[1], ARGV[2], tonumber(ARGV[3])
local served = {}
for i = 6, #ARGV do served[ARGV[i]] = true end
local may_lapse = not was_away(prefix .. 'pulse', tonumber(ARGV[5]), tonumber(lease_ms))
local function start(id, deliveries)
  redis.call('HINCRBY', job_of(id), 'attempt', 1)
  redis.call('HSET', job_of(id), 'state', 'running', 'started', now, 'deaths', deliveries - 1)
  return id
end
local function bury(id)
  close(id, 'failed', ARGV[4])
  redis.call('HSET', job_of(id), 'deaths', max_deliveries)
  redis.call('ZADD', prefix .. 'dead', now, id)
end
for _, id in ipairs(may_lapse and redis.call('ZRANGEBYSCORE', prefix .. 'running', '-inf', now) or {}) do  -- version 1
  if redis.call('HINCRBY', job_of(id), 'deaths', 1) < max_deliveries then queue_again(id) else bury(id) end
end
for i = 6, may_lapse and #ARGV or 0 do
  local stream = prefix .. 'running:' .. ARGV[i]
  while redis.call('EXISTS', stream) == 1 do
    local entry, fields, deliveries = take_over(stream, group, holder, lease_ms)
    if not entry then break end
    if deliveries <= max_deliveries then return start(fields[2], deliveries) end
    bury(fields[2])
  end
end
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'queued', 0, 999)) do
  local found = redis.call('HMGET', job_of(id), 'model', 'deaths')
  if served[found[1]] then
    local stream, deliveries = prefix .. 'running:' .. found[1], tonumber(found[2] or 0) + 1
    redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')  -- fails if the group exists
    redis.call('HSET', job_of(id), 'lease', grant(stream, group, holder, deliveries, {'job', id}))
    redis.call('HINCRBY', prefix .. 'counts', 'running', 1)
    redis.call('ZREM', prefix .. 'queued', id)
    return start(id, deliveries)
  end
end
return false
"""
)

# ARGV id attempt holder renew_idle_ms pause_ms -> 1 if the attempt still holds the lease
RENEW = (
    RUN_WHEN_FULL
    + _COMMON
    + """
was_away(prefix .. 'pulse', tonumber(ARGV[5]), 0)
local stream, entry = lease_entry(ARGV[1])
if not is_running(ARGV[1], ARGV[2]) then
  if entry and came_back(stream, group, ARGV[3], entry) then redis.call('HINCRBY', job_of(ARGV[1]), 'deaths', -1) end
  return 0
end
if not entry or not renew(stream, group, ARGV[3], entry, tonumber(ARGV[4])) then return 0 end
return 1
"""
)

# ARGV id attempt rows -> 1 if the attempt still holds the lease
SET_ROWS = (
    RUN_WHEN_FULL
    + _COMMON
    + """
if not is_running(ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', job_of(ARGV[1]), 'rows', ARGV[3])
return 1
"""
)

# ARGV id attempt number rows holder -> 1 if the attempt holds the lease and the chunk is new
COMMIT = (
    RUN_WHEN_FULL
    + _COMMON
    + """
local id = ARGV[1]
if not is_running(id, ARGV[2]) then return 0 end
if redis.call('SADD', prefix .. 'chunks:' .. id, ARGV[3]) == 0 then return 0 end
redis.call('HINCRBY', job_of(id), 'rows_done', ARGV[4])
redis.call('HSET', job_of(id), 'deaths', 0)
local stream, entry = lease_entry(id)
if entry and lease_of(stream, group, entry) == ARGV[5] then count_again(stream, group, ARGV[5], entry) end
return 1
"""
)

# ARGV id attempt state error -> 1 if the attempt held the lease
END = (
    RUN_WHEN_FULL
    + _COMMON
    + """
if not is_running(ARGV[1], ARGV[2]) then return 0 end
if ARGV[3] == 'queued' then queue_again(ARGV[1]) else close(ARGV[1], ARGV[3], ARGV[4]) end
return 1
"""
)

# ARGV id -> 1 if it was open
CANCEL = (
    RUN_WHEN_FULL
    + _COMMON
    + """
local state = redis.call('HGET', job_of(ARGV[1]), 'state')
if state ~= 'queued' and state ~= 'running' then return 0 end
close(ARGV[1], 'cancelled', '')
return 1
"""
)

# ARGV id -> 1 if it had failed and is queued again, keeping its chunks
REPLAY = (
    REFUSED_WHEN_FULL
    + _COMMON
    + """
local id = ARGV[1]
if redis.call('HGET', job_of(id), 'state') ~= 'failed' then return 0 end
redis.call('ZREM', prefix .. 'ended', id)
redis.call('ZREM', prefix .. 'dead', id)
redis.call('HINCRBY', prefix .. 'counts', 'failed', -1)
redis.call('HDEL', job_of(id), 'error', 'ended')
redis.call('HSET', job_of(id), 'state', 'queued', 'deaths', 0)
redis.call('ZADD', prefix .. 'queued', now, id)
return 1
"""
)

# ARGV id -> 1 if it was closed
FORGET = (
    RUN_WHEN_FULL
    + _COMMON
    + """
local id = ARGV[1]
local found = redis.call('HMGET', job_of(id), 'owner', 'fingerprint', 'key', 'state', 'ended')
if not found[5] then return 0 end
local names = redis.call('SMEMBERS', prefix .. 'keys:' .. id)
names[#names + 1] = prefix .. 'print:' .. found[1] .. ':' .. found[2]
-- Early releases recorded the only key of a job here.
if found[3] then names[#names + 1] = prefix .. 'key:' .. found[1] .. ':' .. found[3] end
for _, name in ipairs(names) do
  if redis.call('GET', name) == id then redis.call('DEL', name) end
end
for _, name in ipairs({'ended', 'dead', 'all', 'of:' .. found[1]}) do redis.call('ZREM', prefix .. name, id) end
redis.call('HINCRBY', prefix .. 'counts', found[4], -1)
redis.call('DEL', job_of(id), prefix .. 'chunks:' .. id, prefix .. 'keys:' .. id)
return 1
"""
)
