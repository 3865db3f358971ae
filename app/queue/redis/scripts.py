"""What Redis does in one piece, as Lua: either all of a script happens or nothing, also when Redis is full or dies.

Every script that adds work is refused as a whole by a full Redis (its first line says so). Those that end work are let
through: they free memory.

Keys of one model, all with the same hash tag: ``load`` (hash: rows:online, rows:bulk, bytes, kept:API), streams of the
lanes, ``dead``, ``beat:NAME`` of workers and API processes (expire), ``workers`` and ``apis`` (who there was).
"""

from __future__ import annotations

_FULL_REFUSES = "#!lua\n"
_ALWAYS = "#!lua flags=allow-oom\n"

# Rows that the other processes that live have promised to requests whose works are still to come. Each process says its
# own number anew with every script, so that a number that was lost or came late is mended by the next.
_KEPT = """
local function kept(load, apis, prefix, me)
  local sum = 0
  for _, api in ipairs(redis.call('SMEMBERS', apis)) do
    if api == me then
      -- it says itself
    elseif redis.call('EXISTS', prefix .. api) == 1 then
      sum = sum + tonumber(redis.call('HGET', load, 'kept:' .. api) or 0)
    else
      redis.call('HDEL', load, 'kept:' .. api)
      redis.call('SREM', apis, api)
    end
  end
  return sum
end
local function load_of(load)
  local values = redis.call('HMGET', load, 'rows:online', 'rows:bulk', 'bytes')
  return tonumber(values[1] or 0), tonumber(values[2] or 0), tonumber(values[3] or 0)
end
"""

# KEYS load apis; ARGV beat-prefix api own rows max_rows max_bytes -> {taken, rows in the queue}
# (own: kept without these)
ADMIT = (
    _FULL_REFUSES
    + _KEPT
    + """
local online, bulk, bytes = load_of(KEYS[1])
local own, rows = tonumber(ARGV[3]), tonumber(ARGV[4])
local queued = online + bulk + own + kept(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
if queued > 0 and (queued + rows > tonumber(ARGV[5]) or bytes > tonumber(ARGV[6])) then
  return {0, queued}
end
redis.call('HSET', KEYS[1], 'kept:' .. ARGV[2], own + rows)
return {1, queued}
"""
)

# KEYS load apis stream sent; ARGV beat-prefix api own rows max_rows max_bytes bytes lane admitted sent_ms field value
# ... -> {id, rows in the queue}, id empty when there is no room. Sent again, it gives the id it got before.
SUBMIT = (
    _FULL_REFUSES
    + _KEPT
    + """
local before = redis.call('GET', KEYS[4])
if before then return {before, 0} end
local own, rows, bytes = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[7])
if ARGV[9] == '1' then
  redis.call('HSET', KEYS[1], 'kept:' .. ARGV[2], own)
else
  local online, bulk, waiting = load_of(KEYS[1])
  local queued = online + bulk + own + kept(KEYS[1], KEYS[2], ARGV[1], ARGV[2])
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

_FORGET = """
local function forget(load, stream, group, id, lane, rows, bytes)
  if redis.call('XDEL', stream, id) == 0 then return 0 end
  redis.call('XACK', stream, group, id)
  redis.call('HINCRBY', load, 'rows:' .. lane, -rows)
  redis.call('HINCRBY', load, 'bytes', -bytes)
  return 1
end
"""

# Nobody waits any more. KEYS load stream; ARGV group id lane rows bytes -> 1 if it was still there
DROP = (
    _ALWAYS
    + _FORGET
    + "return forget(KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]))"
)

# KEYS load stream reply; ARGV group worker id lane rows bytes reply_ms field value ... -> 1 if this worker's lease held
SETTLE = (
    _ALWAYS
    + _FORGET
    + """
local pending = redis.call('XPENDING', KEYS[2], ARGV[1], ARGV[3], ARGV[3], 1)
if #pending == 0 or pending[1][2] ~= ARGV[2] then return 0 end
if forget(KEYS[1], KEYS[2], ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])) == 0 then return 0 end
local fields = {}
for i = 8, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('XADD', KEYS[3], '*', unpack(fields))
redis.call('PEXPIRE', KEYS[3], ARGV[7])
return 1
"""
)

# KEYS stream; ARGV group worker renew_idle_ms id ... -> ids that are no longer this worker's.
# Only what has aged is claimed anew, with JUSTID: a renewal is not a delivery.
RENEW = (
    _ALWAYS
    + """
local lost = {}
for i = 4, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)
  if #pending == 0 or pending[1][2] ~= ARGV[2] then
    lost[#lost + 1] = ARGV[i]
  elseif pending[1][3] >= tonumber(ARGV[3]) then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  end
end
return lost
"""
)

# One lapsed lease. KEYS load stream dead; ARGV group worker lease_ms lane max_deliveries reply-prefix reply_ms error
# dead_length -> {} for none, {id, deliveries, fields}, or {id, deliveries} when it went to the dead letters
CLAIM = (
    _ALWAYS
    + _FORGET
    + """
local got, from = {}, '0-0'
repeat  -- one call looks at ten entries only
  local answer = redis.call('XAUTOCLAIM', KEYS[2], ARGV[1], ARGV[2], ARGV[3], from, 'COUNT', 1)
  from, got = answer[1], answer[2]
until #got > 0 or from == '0-0'
if #got == 0 then return {} end
local id, fields = got[1][1], got[1][2]
local deliveries = redis.call('XPENDING', KEYS[2], ARGV[1], id, id, 1)[1][4]
if deliveries <= tonumber(ARGV[5]) then return {id, deliveries, fields} end
local named = {}
for i = 1, #fields, 2 do named[fields[i]] = fields[i + 1] end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[9], '*', 'lane', ARGV[4], 'deliveries', deliveries - 1, unpack(fields))
forget(KEYS[1], KEYS[2], ARGV[1], id, ARGV[4], tonumber(named.rows), tonumber(named.bytes))
local reply = ARGV[6] .. named.to
redis.call('XADD', reply, '*', 'id', named.id, 'payload', ARGV[8])
redis.call('PEXPIRE', reply, ARGV[7])
return {id, deliveries}
"""
)

# KEYS load apis workers online bulk; ARGV beat-prefix api own beat_ms
# -> {rows online, rows bulk, bytes, kept, ms since the oldest online, bulk, {worker, what it says, ...}}
STATUS = (
    _ALWAYS
    + _KEPT
    + """
redis.call('SET', ARGV[1] .. ARGV[2], '', 'PX', ARGV[4])
redis.call('SADD', KEYS[2], ARGV[2])
redis.call('HSET', KEYS[1], 'kept:' .. ARGV[2], ARGV[3])
local online, bulk, bytes = load_of(KEYS[1])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local ages = {}
for i = 4, 5 do
  local first = redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', 1)
  local age = 0
  if #first > 0 then age = now - tonumber(string.match(first[1][1], '^%d+')) end
  ages[#ages + 1] = age
end
local workers = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[3])) do
  local says = redis.call('GET', ARGV[1] .. name)
  if says then
    workers[#workers + 1] = name
    workers[#workers + 1] = says
  else
    redis.call('SREM', KEYS[3], name)
  end
end
return {online, bulk, bytes, kept(KEYS[1], KEYS[2], ARGV[1], ARGV[2]), ages[1], ages[2], workers}
"""
)

# Whether a lapsed lease waits for somebody. KEYS stream; ARGV group lease_ms -> how many, 1 at most
OVERDUE = _ALWAYS + "return #redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[2], '-', '+', 1)"

# A worker lives. KEYS workers beat; ARGV worker beat_ms says
BEAT = (
    _ALWAYS
    + """
redis.call('SADD', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
return 1
"""
)
