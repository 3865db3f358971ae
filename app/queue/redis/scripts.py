"""Lua scripts of the queue of requests: each happens as a whole or not at all, even when Redis is full or dies.

Keys of one model share a hash tag: ``load`` (hash: rows:online, rows:bulk, bytes, kept:SERVICE), one stream per
lane, ``dead`` (dead letters), ``beat:NAME`` of workers and services (they expire), ``workers`` and ``apis`` (names),
``pulse`` (hash: when a process last asked, and when the last pause ended), ``LANE:former`` (hash: former holders).
"""

from __future__ import annotations

from scpalm.app.queue.redis.lease_scripts import LEASES, REFUSED_WHEN_FULL, RUN_WHEN_FULL

# Rows that the other live services have reserved for requests whose items are still to come. Each service reports its
# own number with every script, so a lost or late report is corrected by the next one.
_RESERVED = """
local function reserved(load, services, prefix, me)
  local sum = 0
  for _, name in ipairs(redis.call('SMEMBERS', services)) do
    if name == me then
      -- the caller reports its own number
    elseif redis.call('EXISTS', prefix .. name) == 1 then
      sum = sum + tonumber(redis.call('HGET', load, 'kept:' .. name) or 0)
    else
      redis.call('HDEL', load, 'kept:' .. name)
      redis.call('SREM', services, name)
    end
  end
  return sum
end
local function load_of(load)
  local values = redis.call('HMGET', load, 'rows:online', 'rows:bulk', 'bytes')
  return tonumber(values[1] or 0), tonumber(values[2] or 0), tonumber(values[3] or 0)
end
"""

# Reserve rows. KEYS load apis; ARGV beat-prefix service own rows max_rows max_bytes -> {accepted, rows in the queue}
# (own: rows that this service has reserved, without these)
ADMIT = (
    REFUSED_WHEN_FULL
    + _RESERVED
    + """
local online, bulk, bytes = load_of(KEYS[1])
local own, rows = tonumber(ARGV[3]), tonumber(ARGV[4])
local queued = online + bulk + own + reserved(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if queued > 0 and (queued + rows > tonumber(ARGV[5]) or bytes > tonumber(ARGV[6])) then
  return {0, queued}
end
redis.call('HSET', KEYS[1], 'kept:' .. ARGV[2], own + rows)
return {1, queued}
"""
)

# Queue an item. KEYS load apis stream sent; ARGV beat-prefix service own rows max_rows max_bytes bytes lane admitted
# sent_ms field value ... -> {id, rows in the queue}; id is empty when there is no room. A repeated call returns the
# first id.
SUBMIT = (
    REFUSED_WHEN_FULL
    + _RESERVED
    + """
local before = redis.call('GET', KEYS[4])
if before then return {before, 0} end
local own, rows, bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[7])
if ARGV[9] == '1' then
  redis.call('HSET', KEYS[1], 'kept:' .. ARGV[2], own)
else
  local online, bulk, waiting = load_of(KEYS[1])
  local queued = online + bulk + own + reserved(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
  if queued > 0 and (queued + rows > tonumber(ARGV[5]) or waiting + bytes > tonumber(ARGV[6])) then
    return {'', queued}
  end
end
local fields = {}
for i = 11, #ARGV do fields[#fields + 1] = ARGV[i] end
local id = redis.call('XADD', KEYS[3], '*', unpack(fields))
redis.call('HINCRBY', KEYS[1], 'rows:' .. ARGV[8], rows)
redis.call('HINCRBY', KEYS[1], 'bytes', bytes)
redis.call('SET', KEYS[4], id, 'PX', ARGV[10])
return {id, 0}
"""
)

_REMOVE = (
    LEASES
    + """
local function remove(load, stream, group, id, lane, rows, bytes)
  if not finish(stream, group, id) then return 0 end
  redis.call('HINCRBY', load, 'rows:' .. lane, -rows)
  redis.call('HINCRBY', load, 'bytes', -bytes)
  return 1
end
"""
)

# Withdraw an item. KEYS load stream; ARGV group id lane rows bytes -> 1 if it was still there
DROP = (
    RUN_WHEN_FULL
    + _REMOVE
    + "return remove(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))"
)

# KEYS load stream reply; ARGV group worker id lane rows bytes reply_ms field value ... -> 1 if this worker held the
# lease
SETTLE = (
    RUN_WHEN_FULL
    + _REMOVE
    + """
local holder = lease_of(KEYS[2], ARGV[1], ARGV[3])
if holder ~= ARGV[2] then return 0 end
if remove(KEYS[1], KEYS[2], ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])) == 0 then return 0 end
local fields = {}
for i = 8, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('XADD', KEYS[3], '*', unpack(fields))
redis.call('PEXPIRE', KEYS[3], ARGV[7])
return 1
"""
)

# KEYS stream; ARGV group worker renew_idle_ms id ... -> ids that this worker no longer holds
RENEW = (
    RUN_WHEN_FULL
    + LEASES
    + """
local lost = {}
for i = 4, #ARGV do
  if not renew(KEYS[1], ARGV[1], ARGV[2], ARGV[i], tonumber(ARGV[3])) then
    came_back(KEYS[1], ARGV[1], ARGV[2], ARGV[i])
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""
)

# Take over one lapsed lease. KEYS load stream dead; ARGV group worker lease_ms lane max_deliveries reply-prefix
# reply_ms error dead_length -> {} for none, {id, deliveries, fields}, or {id, deliveries} when it became a dead letter
CLAIM = (
    RUN_WHEN_FULL
    + _REMOVE
    + """
local id, fields, deliveries = take_over(KEYS[2], ARGV[1], ARGV[2], ARGV[3])
if not id then return {} end
if deliveries <= tonumber(ARGV[5]) then return {id, deliveries, fields} end
local named = {}
for i = 1, #fields, 2 do named[fields[i]] = fields[i + 1] end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[9], '*', 'lane', ARGV[4], 'deliveries', deliveries - 1, unpack(fields))
remove(KEYS[1], KEYS[2], ARGV[1], id, ARGV[4], tonumber(named.rows), tonumber(named.bytes))
local reply = ARGV[6] .. named.to
redis.call('XADD', reply, '*', 'id', named.id, 'payload', ARGV[8])
redis.call('PEXPIRE', reply, ARGV[7])
return {id, deliveries}
"""
)

# KEYS load apis workers online bulk pulse; ARGV beat-prefix service own beat_ms pause_ms takes_requests
# -> {rows online, rows bulk, bytes, reserved, ms since the oldest online, bulk, {worker, its status, ...}, services}
STATUS = (
    RUN_WHEN_FULL
    + LEASES
    + _RESERVED
    + """
was_away(KEYS[6], tonumber(ARGV[5]), 0)
if ARGV[6] == '1' then
  redis.call('SET', ARGV[1] .. ARGV[2], '', 'PX', ARGV[4])
  redis.call('SADD', KEYS[2], ARGV[2])
  redis.call('HSET', KEYS[1], 'kept:' .. ARGV[2], ARGV[3])
end
local online, bulk, bytes = load_of(KEYS[1])
local now = now_ms()
local ages = {}
for i = 4, 5 do
  local first = redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', 1)
  local age = 0
  if #first > 0 then age = now - tonumber(string.match(first[1][1], '^%d+')) end
  ages[#ages + 1] = age
end
local workers = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local status = redis.call('GET', ARGV[1] .. name)
  if status then
    workers[#workers + 1] = name
    workers[#workers + 1] = status
  else
    redis.call('SREM', KEYS[3], name)
  end
end
local kept = reserved(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
return {online, bulk, bytes, kept, ages[1], ages[2], workers, redis.call('SCARD', KEYS[2])}
"""
)

# Whether a lapsed lease may be taken over. KEYS stream pulse; ARGV group lease_ms pause_ms -> 0 or 1
OVERDUE = (
    RUN_WHEN_FULL
    + LEASES
    + """
if was_away(KEYS[2], tonumber(ARGV[3]), tonumber(ARGV[2])) then return 0 end
return #redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[2], '-', '+', 1)
"""
)

# Heartbeat of a worker. KEYS workers beat pulse; ARGV worker beat_ms status pause_ms
BEAT = (
    RUN_WHEN_FULL
    + LEASES
    + """
was_away(KEYS[3], tonumber(ARGV[4]), 0)
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
return 1
"""
)
