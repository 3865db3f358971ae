"""What the ledger in Redis does in one piece, as Lua. Every key begins with KEYS[1], ``scpalm:{jobs}:``.

``job:ID`` (hash), ``chunks:ID`` (set of numbers), ``queued`` (sorted by the moment of acceptance), ``running`` (sorted
by the end of the lease), ``ended`` (sorted by the moment), ``dead`` (of these, those whose processes died), ``all`` and
``of:OWNER`` (sorted by acceptance), ``print:OWNER:FINGERPRINT`` and ``key:OWNER:KEY`` (id), ``counts`` (of ended ones).
Moments are milliseconds of Redis' own clock, so that no other clock matters.
"""

from __future__ import annotations

_FULL_REFUSES = "#!lua\n"
_ALWAYS = "#!lua flags=allow-oom\n"

_COMMON = """
local prefix = KEYS[1]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local function job_of(id) return prefix .. 'job:' .. id end
local function close(id, state, error)
  redis.call('ZREM', prefix .. 'queued', id)
  redis.call('ZREM', prefix .. 'running', id)
  redis.call('HSET', job_of(id), 'state', state, 'error', error, 'ended', now)
  redis.call('ZADD', prefix .. 'ended', now, id)
  redis.call('HINCRBY', prefix .. 'counts', state, 1)
end
local function holds(id, attempt)
  local found = redis.call('HMGET', job_of(id), 'state', 'attempt')
  return found[1] == 'running' and found[2] == attempt
end
"""

# ARGV id owner fingerprint key manifest model name -> id of the job (owner, key: as parts of keys; name: as it is)
ADD = (
    _FULL_REFUSES
    + _COMMON
    + """
local id, owner, key = ARGV[1], ARGV[2], ARGV[4]
local by_key, by_print = prefix .. 'key:' .. owner .. ':' .. key, prefix .. 'print:' .. owner .. ':' .. ARGV[3]
if key ~= '' then
  local known = redis.call('GET', by_key)
  if known then return known end
end
local known = redis.call('GET', by_print)
if known then
  local state = redis.call('HGET', job_of(known), 'state')
  if state and state ~= 'failed' and state ~= 'cancelled' then return known end
end
redis.call('HSET', job_of(id), 'id', id, 'owner', owner, 'fingerprint', ARGV[3], 'key', key, 'manifest', ARGV[5],
  'model', ARGV[6], 'name', ARGV[7], 'state', 'queued', 'attempt', 0, 'rows_done', 0, 'deaths', 0, 'created', now)
redis.call('SET', by_print, id)
if key ~= '' then redis.call('SET', by_key, id) end
redis.call('ZADD', prefix .. 'queued', now, id)
redis.call('ZADD', prefix .. 'all', now, id)
redis.call('ZADD', prefix .. 'of:' .. owner, now, id)
return id
"""
)

# ARGV lease_ms max_deaths died model ... -> id, or nil. Jobs whose lease has lapsed come first.
TAKE = (
    _ALWAYS
    + _COMMON
    + """
local served = {}
for i = 4, #ARGV do served[ARGV[i]] = true end
local function start(id)
  redis.call('ZREM', prefix .. 'queued', id)
  redis.call('ZADD', prefix .. 'running', now + tonumber(ARGV[1]), id)
  redis.call('HINCRBY', job_of(id), 'attempt', 1)
  redis.call('HSET', job_of(id), 'state', 'running', 'started', now)
  return id
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'running', '-inf', now)) do
  if served[redis.call('HGET', job_of(id), 'model')] then
    if redis.call('HINCRBY', job_of(id), 'deaths', 1) < tonumber(ARGV[2]) then return start(id) end
    close(id, 'failed', ARGV[3])
    redis.call('ZADD', prefix .. 'dead', now, id)
  end
end
for _, id in ipairs(redis.call('ZRANGE', prefix .. 'queued', 0, 999)) do
  if served[redis.call('HGET', job_of(id), 'model')] then return start(id) end
end
return false
"""
)

# ARGV id attempt lease_ms -> 1 if it still counts
KEEP = (
    _ALWAYS
    + _COMMON
    + """
if not holds(ARGV[1], ARGV[2]) then return 0 end
redis.call('ZADD', prefix .. 'running', now + tonumber(ARGV[3]), ARGV[1])
return 1
"""
)

# ARGV id attempt rows -> 1 if it still counts
SET_ROWS = (
    _ALWAYS
    + _COMMON
    + """
if not holds(ARGV[1], ARGV[2]) then return 0 end
redis.call('HSET', job_of(ARGV[1]), 'rows', ARGV[3])
return 1
"""
)

# ARGV id attempt number rows lease_ms -> 1 if this attempt counts and the chunk is new
COMMIT = (
    _ALWAYS
    + _COMMON
    + """
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 0 end
if redis.call('SADD', prefix .. 'chunks:' .. id, ARGV[3]) == 0 then return 0 end
redis.call('HINCRBY', job_of(id), 'rows_done', ARGV[4])
redis.call('HSET', job_of(id), 'deaths', 0)
redis.call('ZADD', prefix .. 'running', now + tonumber(ARGV[5]), id)
return 1
"""
)

# ARGV id attempt state error -> 1 if this attempt counted
END = (
    _ALWAYS
    + _COMMON
    + """
local id = ARGV[1]
if not holds(id, ARGV[2]) then return 0 end
if ARGV[3] ~= 'queued' then
  close(id, ARGV[3], ARGV[4])
  return 1
end
redis.call('ZREM', prefix .. 'running', id)
redis.call('HSET', job_of(id), 'state', 'queued')
redis.call('ZADD', prefix .. 'queued', redis.call('HGET', job_of(id), 'created'), id)
return 1
"""
)

# ARGV id -> 1 if it was open
CANCEL = (
    _ALWAYS
    + _COMMON
    + """
local state = redis.call('HGET', job_of(ARGV[1]), 'state')
if state ~= 'queued' and state ~= 'running' then return 0 end
close(ARGV[1], 'cancelled', '')
return 1
"""
)

# ARGV id -> 1 if it had failed and waits again, with the chunks it had
REPLAY = (
    _FULL_REFUSES
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
    _ALWAYS
    + _COMMON
    + """
local id = ARGV[1]
local found = redis.call('HMGET', job_of(id), 'owner', 'fingerprint', 'key', 'state', 'ended')
if not found[5] then return 0 end
local names = {prefix .. 'print:' .. found[1] .. ':' .. found[2], prefix .. 'key:' .. found[1] .. ':' .. found[3]}
for _, name in ipairs(names) do
  if redis.call('GET', name) == id then redis.call('DEL', name) end
end
for _, name in ipairs({'ended', 'dead', 'all', 'of:' .. found[1]}) do redis.call('ZREM', prefix .. name, id) end
redis.call('HINCRBY', prefix .. 'counts', found[4], -1)
redis.call('DEL', job_of(id), prefix .. 'chunks:' .. id)
return 1
"""
)
