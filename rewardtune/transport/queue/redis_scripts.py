"""What Redis itself does for ``RedisJobQueue``: one Lua script for every step that must be whole.

Redis runs a script without interruption, so nobody sees half of one, and a client that dies has
done all of it or nothing. Commands of Redis 6.2 only. All keys carry the run's name as their hash
tag, so that they lie on one node of a cluster:

    {run}:term                      hash: the term, its frontier, its limits and its counts
    {run}:work                      stream: one entry per job without a result, oldest first
    {run}:TERM:job:ORDINAL          hash: body, entry, lease, deliveries, failures
    {run}:TERM:result:ORDINAL       string: s + scored group, or d + group that nobody could score
    {run}:calls                     list: a word for each job that a sleeping worker could take
    {run}:bell                      stream of one entry, a term: moves when it has another result
    {run}:letters                   stream: dead letters, the last 1000
    {run}:workers, {run}:worker:*   set and hashes: who said to be here, each with its own expiry
    {run}:draining                  sorted set: who is asked to leave, by when it was asked

A lease is an entry's place in the consumer group's pending list: who has it, and for how long it
has been idle. A job that was given back stays there, held by ``(nobody)`` and idle since 1970, so
that it is the next to go. Entries are deleted with their acknowledgement, never trimmed.

Jobs and results exist for ordinals in [frontier, frontier + capacity) alone, so that range is the
list of a term's keys. Every script begins with ``SHARED``, gets ``{run}:term`` as its one key and
answers a list whose first word says what the rest is: ``ok``, or why it refused.

When memory is full, Redis refuses a script whose first write needs some, and lets a script finish
that began by freeing some. So put begins by adding, and is refused whole; what ends a job begins
by deleting, and gets through.
"""

from __future__ import annotations

SHARED = """
local TERM = KEYS[1]
local root = string.sub(TERM, 1, -5)
local WORK, CALLS, BELL = root .. 'work', root .. 'calls', root .. 'bell'
local LETTERS, WORKERS, DRAINING = root .. 'letters', root .. 'workers', root .. 'draining'
local GROUP, NOBODY = 'workers', '(nobody)'

local known = redis.call('HMGET', TERM, 'number', 'frontier', 'capacity', 'lease_ms')
local number, frontier, capacity = tonumber(known[1]), tonumber(known[2]), tonumber(known[3])
local lease_ms = tonumber(known[4])

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function job_key(ordinal) return root .. known[1] .. ':job:' .. ordinal end
local function result_key(ordinal) return root .. known[1] .. ':result:' .. ordinal end
local function worker_key(worker) return root .. 'worker:' .. worker end

-- Why a call that names this term is refused; nothing if it is not.
local function fence(asked)
  if not number then return {'no_term'} end
  if tonumber(asked) < number then return {'stale_term', known[1]} end
  if tonumber(asked) > number then return {'lost_term', known[1]} end
end

local function call_a_worker()
  if redis.call('LLEN', CALLS) < capacity then redis.call('RPUSH', CALLS, 1) end
end

local function is_owner(asked, ordinal, worker, lease)
  if tonumber(asked) ~= number then return false end
  local held = redis.call('HMGET', job_key(ordinal), 'lease', 'worker')
  return held[1] == lease and held[2] == worker
end

local function drop_entry(entry)
  redis.call('XACK', WORK, GROUP, entry)
  redis.call('XDEL', WORK, entry)
end

local function release(ordinal)
  local key = job_key(ordinal)
  redis.call('HDEL', key, 'lease')
  local entry = redis.call('HGET', key, 'entry')
  redis.call('XCLAIM', WORK, GROUP, NOBODY, 0, entry, 'TIME', 0, 'JUSTID')
  call_a_worker()
end

local function settle(ordinal, result)
  local entry = redis.call('HGET', job_key(ordinal), 'entry')
  if entry then drop_entry(entry) end
  redis.call('DEL', job_key(ordinal))
  redis.call('SET', result_key(ordinal), result)
  redis.call('HINCRBY', TERM, 'results', 1)
  redis.call('XADD', BELL, 'MAXLEN', 1, '*', 'term', known[1])
end

local function bury(ordinal)
  local key = job_key(ordinal)
  redis.call('HDEL', key, 'lease')
  local job = redis.call('HMGET', key, 'body', 'worker', 'reward_digest', 'num_failures')
  local letter = {
    'term', known[1], 'ordinal', ordinal, 'body', job[1], 'worker', job[2] or '',
    'reward_digest', job[3] or '', 'num_failures', job[4] or 0,
  }
  for i = 1, tonumber(job[4] or 0) do
    for _, part in ipairs({'kind', 'message', 'traceback'}) do
      local name = 'failure:' .. i .. ':' .. part
      letter[#letter + 1] = name
      letter[#letter + 1] = redis.call('HGET', key, name)
    end
  end
  redis.call('XADD', LETTERS, 'MAXLEN', 1000, '*', unpack(letter))
  redis.call('HINCRBY', TERM, 'dead', 1)
  settle(ordinal, 'd' .. job[1])
end

-- Forget ordinals from the frontier up to before; there are none beyond the capacity.
local function forget(before)
  for ordinal = frontier, math.min(before, frontier + capacity) - 1 do
    local name = string.format('%d', ordinal)
    local entry = redis.call('HGET', job_key(name), 'entry')
    if entry then drop_entry(entry) end
    redis.call('DEL', job_key(name))
    if redis.call('DEL', result_key(name)) == 1 then redis.call('HINCRBY', TERM, 'results', -1) end
  end
end
"""

OPEN_TERM = """
-- ARGV: number, spec, capacity, frontier, lease_ms, same_exception, max_crashes, max_deliveries
local asked, before = tonumber(ARGV[1]), tonumber(ARGV[4])
if number and asked < number then return {'stale_term', known[1]} end
-- A work stream that somebody deleted takes the jobs with it: then nothing is left to keep.
local is_known = number == asked and redis.call('EXISTS', WORK) == 1
if is_known then
  if redis.call('HGET', TERM, 'spec') ~= ARGV[2] then return {'other_run'} end
  if before > frontier then forget(before) else before = frontier end
else
  if number then forget(frontier + capacity) end
  redis.call('DEL', TERM, WORK, CALLS, LETTERS)
  redis.call('XGROUP', 'CREATE', WORK, GROUP, 0, 'MKSTREAM')
end
redis.call('HSET', TERM, 'number', ARGV[1], 'spec', ARGV[2], 'capacity', ARGV[3],
  'frontier', string.format('%d', before), 'lease_ms', ARGV[5], 'same_exception', ARGV[6],
  'max_crashes', ARGV[7], 'max_deliveries', ARGV[8])
-- Whoever waits in an older term finds out.
redis.call('XADD', BELL, 'MAXLEN', 1, '*', 'term', ARGV[1])
return {'ok'}
"""

PUT = """
-- ARGV: term, ordinal, body. Answers 1 if the job was added.
local refused = fence(ARGV[1])
if refused then return refused end
local ordinal = tonumber(ARGV[2])
if ordinal < frontier then return {'ok', 0} end
if ordinal >= frontier + capacity then return {'full', known[2], known[3]} end
if redis.call('EXISTS', job_key(ARGV[2]), result_key(ARGV[2])) > 0 then return {'ok', 0} end
local entry = redis.call('XADD', WORK, '*', 'ordinal', ARGV[2])
redis.call('HSET', job_key(ARGV[2]), 'body', ARGV[3], 'entry', entry)
call_a_worker()
return {'ok', 1}
"""

MISSING = """
-- ARGV: term, ordinals...
local refused = fence(ARGV[1])
if refused then return refused end
local answer = {'ok'}
for i = 2, #ARGV do
  if tonumber(ARGV[i]) >= frontier
      and redis.call('EXISTS', job_key(ARGV[i]), result_key(ARGV[i])) == 0 then
    answer[#answer + 1] = ARGV[i]
  end
end
return answer
"""

RESULTS = """
-- ARGV: term, ordinals... Answers ordinal, result, ordinal, result...
local refused = fence(ARGV[1])
if refused then return refused end
local answer = {'ok'}
for i = 2, #ARGV do
  local result = redis.call('GET', result_key(ARGV[i]))
  if result then
    answer[#answer + 1] = ARGV[i]
    answer[#answer + 1] = result
  end
end
return answer
"""

FENCE = """
-- ARGV: term
return fence(ARGV[1]) or {'ok'}
"""

CONSUME = """
-- ARGV: term, before
local refused = fence(ARGV[1])
if refused then return refused end
if tonumber(ARGV[2]) > frontier then
  forget(tonumber(ARGV[2]))
  redis.call('HSET', TERM, 'frontier', ARGV[2])
end
return {'ok'}
"""

TAKE = """
-- ARGV: worker, reward digest, how many. Answers term, then ordinal, body, delivery, lease...
if not number then return {'ok', -1} end
local answer, wanted = {'ok', number}, tonumber(ARGV[3])

local function hand_out(entry, ordinal)
  local key = job_key(ordinal)
  local lease = known[1] .. '/' .. entry .. '/' .. redis.call('HINCRBY', TERM, 'leases', 1)
  local delivery = redis.call('HINCRBY', key, 'deliveries', 1)
  if delivery > 1 then redis.call('HINCRBY', TERM, 'redeliveries', 1) end
  redis.call('HSET', key, 'lease', lease, 'worker', ARGV[1], 'reward_digest', ARGV[2])
  for _, value in ipairs({ordinal, redis.call('HGET', key, 'body'), delivery, lease}) do
    answer[#answer + 1] = value
  end
  wanted = wanted - 1
end

for _, held in ipairs(redis.call('XPENDING', WORK, GROUP, 'IDLE', lease_ms, '-', '+', capacity)) do
  if wanted == 0 then break end
  local entry, holder = held[1], held[2]
  local ordinal = redis.call('XRANGE', WORK, entry, entry)[1][2][2]
  local counts = redis.call('HMGET', job_key(ordinal), 'deliveries', 'num_failures')
  local unreported = tonumber(counts[1] or 0) - tonumber(counts[2] or 0)
  local limit = tonumber(redis.call('HGET', TERM, 'max_deliveries'))
  if holder ~= NOBODY and unreported >= limit then
    bury(ordinal)
  else
    redis.call('XCLAIM', WORK, GROUP, ARGV[1], 0, entry, 'JUSTID')
    hand_out(entry, ordinal)
  end
end
if wanted > 0 then
  local read = redis.call(
    'XREADGROUP', 'GROUP', GROUP, ARGV[1], 'COUNT', wanted, 'STREAMS', WORK, '>')
  for _, entry in ipairs(read and read[1][2] or {}) do hand_out(entry[1], entry[2][2]) end
  -- Nothing is left to take, so nobody need be called for it.
  if wanted > 0 then redis.call('DEL', CALLS) end
end
return answer
"""

RENEW = """
-- ARGV: term, ordinal, worker, lease. Answers 1 if the lease began anew.
local refused = fence(ARGV[1])
if refused and refused[1] ~= 'stale_term' then return refused end
if not is_owner(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return {'ok', 0} end
local entry = redis.call('HGET', job_key(ARGV[2]), 'entry')
redis.call('XCLAIM', WORK, GROUP, ARGV[3], 0, entry, 'JUSTID')
return {'ok', 1}
"""

COMMIT = """
-- ARGV: term, ordinal, scored. A job that the queue knows nothing of (it was wiped, and the term
-- opened again) is settled all the same: the score is what was waited for.
local refused = fence(ARGV[1])
if refused and refused[1] ~= 'stale_term' then return refused end
local ordinal = tonumber(ARGV[2])
if refused or ordinal < frontier or ordinal >= frontier + capacity then
  redis.call('HINCRBY', TERM, 'stale_commits', 1)
  return {'ok', 'stale'}
end
if redis.call('EXISTS', result_key(ARGV[2])) == 1 then
  redis.call('HINCRBY', TERM, 'duplicate_commits', 1)
  return {'ok', 'duplicate'}
end
settle(ARGV[2], 's' .. ARGV[3])
return {'ok', 'accepted'}
"""

FAIL = """
-- ARGV: term, ordinal, worker, lease, kind, message, traceback
local refused = fence(ARGV[1])
if refused and refused[1] ~= 'stale_term' then return refused end
if not is_owner(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return {'ok', 'stale'} end
local key = job_key(ARGV[2])
redis.call('HDEL', key, 'lease')
local total = redis.call('HINCRBY', key, 'num_failures', 1)
local name = 'failure:' .. total .. ':'
redis.call('HSET', key, name .. 'kind', ARGV[5], name .. 'message', ARGV[6],
  name .. 'traceback', ARGV[7])
redis.call('HINCRBY', TERM, 'failures:' .. ARGV[5], 1)
local alike = 0
if ARGV[5] == 'exception' or ARGV[5] == 'invalid' then
  alike = redis.call('HINCRBY', key, 'alike:' .. redis.sha1hex(ARGV[6]), 1)
end
local limits = redis.call('HMGET', TERM, 'same_exception', 'max_crashes')
if alike >= tonumber(limits[1]) or total >= tonumber(limits[2]) then
  bury(ARGV[2])
  return {'ok', 'dead'}
end
release(ARGV[2])
return {'ok', 'retry'}
"""

GIVE_BACK = """
-- ARGV: term, ordinal, worker, lease
local refused = fence(ARGV[1])
if refused and refused[1] ~= 'stale_term' then return refused end
if is_owner(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then
  release(ARGV[2])
  redis.call('HINCRBY', job_key(ARGV[2]), 'deliveries', -1)
end
return {'ok'}
"""

STATS = """
-- Answers term, frontier, jobs, of them pending, of them held by nobody any more, milliseconds
-- since the oldest was put, then counts.
if not number then return {'ok', -1, 0, 0, 0, 0, 0} end
local pending = redis.call('XPENDING', WORK, GROUP)[1]
local loose = #redis.call('XPENDING', WORK, GROUP, 'IDLE', lease_ms, '-', '+', capacity)
local oldest, age = redis.call('XRANGE', WORK, '-', '+', 'COUNT', 1)[1], 0
if oldest then age = math.max(0, now_ms() - tonumber(string.match(oldest[1], '%d+'))) end
local answer = {'ok', number, frontier, redis.call('XLEN', WORK), pending, loose, age}
for _, count in ipairs(redis.call('HMGET', TERM, unpack(ARGV))) do
  answer[#answer + 1] = tonumber(count or 0)
end
return answer
"""

HEARTBEAT = """
-- ARGV: worker, milliseconds to live, field, value, field, value... Answers 1 to ask it to drain.
local key = worker_key(ARGV[1])
redis.call('DEL', key)
redis.call('HSET', key, unpack(ARGV, 3))
redis.call('PEXPIRE', key, ARGV[2])
redis.call('SADD', WORKERS, ARGV[1])
return {'ok', redis.call('ZSCORE', DRAINING, ARGV[1]) and 1 or 0}
"""

DEREGISTER = """
-- ARGV: worker
redis.call('DEL', worker_key(ARGV[1]))
redis.call('SREM', WORKERS, ARGV[1])
redis.call('ZREM', DRAINING, ARGV[1])
-- A consumer takes its pending entries with it, so one that still has a lease must stay.
if number and #redis.call('XPENDING', WORK, GROUP, '-', '+', 1, ARGV[1]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', WORK, GROUP, ARGV[1])
end
return {'ok'}
"""

REQUEST_DRAIN = """
-- ARGV: worker. A day later it has left, or was never here.
redis.call('ZREMRANGEBYSCORE', DRAINING, '-inf', now_ms() - 86400000)
redis.call('ZADD', DRAINING, now_ms(), ARGV[1])
return {'ok'}
"""

LIST_WORKERS = """
-- Answers a list of fields and values per worker.
local answer = {'ok'}
for _, worker in ipairs(redis.call('SMEMBERS', WORKERS)) do
  local record = redis.call('HGETALL', worker_key(worker))
  if #record == 0 then
    redis.call('SREM', WORKERS, worker)
  else
    answer[#answer + 1] = record
  end
end
return answer
"""
