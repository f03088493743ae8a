"""What Redis itself does for ``RedisJobQueue``: one Lua script for every step that must be whole.

Redis runs a script without interruption, so nobody sees half of one, and a client that dies has
done all of it or nothing. Commands of Redis 6.2 only. All keys carry the run's name as their hash
tag, so that they lie on one node of a cluster:

    {run}:term                      hash: the term, its run and seal, its frontier, limits, counts
    {run}:work                      stream: one entry per job without a result, oldest first
    {run}:TERM:job:ORDINAL          hash: body, seal, entry, lease, deliveries, failures
    {run}:TERM:result:ORDINAL       string: s + worker, seal, scored group, or d + those of a group
                                    that nobody could score
    {run}:calls                     list: a word for each job that a sleeping worker could take
    {run}:bell                      stream of one entry, a term: moves when it has another result
    {run}:letters                   stream: dead letters, the last 1000
    {run}:refused                   hash: results that the learner refused, by worker
    {run}:workers, {run}:worker:*   set and hashes: who said to be here, each with its own expiry
    {run}:draining                  sorted set: who is asked to leave, by when it was asked

A lease is an entry's place in the consumer group's pending list: who has it, and for how long it
has been idle. A job that was given back stays there, held by ``(nobody)`` and idle since 1970, so
that it is the next to go. Entries are deleted with their acknowledgement, never trimmed. A job that
has its result keeps its body until it is consumed, for a result may be refused.

Jobs and results exist for ordinals in [frontier, frontier + capacity) alone, so that range is the
list of a term's keys. Every script begins with ``SHARED``, gets ``{run}:term`` as its one key and
answers a list whose first word says what the rest is: ``ok``, or why it refused.

Redis runs a script with its caller's rights, so whoever may take and commit jobs may write
anything into its run's keys by hand. Scripts therefore believe nothing that they read: a number
that is none counts as 0, an entry that is no job is passed over and counted, a job that nobody
could lease any more is missing, and what makes no sense at all is ``damaged``, which the learner
mends by opening its term afresh.

When memory is full, Redis refuses a script whose first write needs some, and lets a script finish
that began by freeing some. So put begins by adding, and is refused whole; what ends a job begins
by deleting, and gets through.
"""

from __future__ import annotations

MAX_CAPACITY = 2**20
"""Ordinals that may be unconsumed at once: what a script walks over while all others wait."""

SHARED = """
local TERM = KEYS[1]
local root = string.sub(TERM, 1, -5)
local WORK, CALLS, BELL = root .. 'work', root .. 'calls', root .. 'bell'
local LETTERS, WORKERS, DRAINING = root .. 'letters', root .. 'workers', root .. 'draining'
local REFUSED = root .. 'refused'
local GROUP, NOBODY, OTHERS, MAX_NAMED = 'workers', '(nobody)', '(others)', 100

-- What is written in digits, and can be counted with exactly; nothing else is a number.
local function whole(text)
  local value = type(text) == 'string' and string.match(text, '^%d+$') and tonumber(text)
  if value and value < 9007199254740992 then return value end
end

-- Answers an error of what is stored; one of what the caller may do ends the script.
local function try(...)
  local answer = redis.pcall(...)
  local err = type(answer) == 'table' and answer.err
  if err and (string.find(err, 'user executing the script', 1, true)
      or string.find(err, 'NOPERM', 1, true)) then
    error(err)
  end
  return answer
end

local known = try('HMGET', TERM, 'number', 'frontier', 'capacity', 'lease_ms')
local number, frontier, capacity = whole(known[1]), whole(known[2]), whole(known[3])
local lease_ms = whole(known[4])
local is_damaged = known.err ~= nil or ((known[1] or known[2] or known[3]) and not (
  number and frontier and capacity and lease_ms and capacity <= 1048576))

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

-- Begins anew where there is no number.
local function count(key, field, more)
  local value = try('HINCRBY', key, field, more)
  if type(value) == 'number' then return value end
  redis.call('HSET', key, field, math.max(0, more))
  return math.max(0, more)
end

local function call_a_worker()
  if redis.call('LLEN', CALLS) < capacity then redis.call('RPUSH', CALLS, 1) end
end

-- A job's fields as a table; nothing where there is no job.
local function job(ordinal, ...)
  local values = try('HMGET', job_key(ordinal), ...)
  if values.err then return end
  local found = {}
  for i, name in ipairs({...}) do found[name] = values[i] end
  return found
end

local function is_owner(asked, ordinal, worker, lease)
  if tonumber(asked) ~= number then return false end
  local held = job(ordinal, 'lease', 'worker', 'body')
  return held and held.body and held.lease == lease and held.worker == worker
end

local function drop_entry(entry)
  try('XACK', WORK, GROUP, entry)
  try('XDEL', WORK, entry)
end

-- The ordinal of an entry that is a job's; nothing where it is not.
local function ordinal_of(entry, fields)
  local ordinal = fields[2]
  if #fields ~= 2 or fields[1] ~= 'ordinal' or not whole(ordinal) then return end
  if whole(ordinal) < frontier or whole(ordinal) >= frontier + capacity then return end
  local held = job(ordinal, 'entry', 'body')
  if held and held.body and held.entry == entry then return ordinal end
end

local function pass_over(entry)
  drop_entry(entry)
  count(TERM, 'bad_entries', 1)
end

-- The last entry that any worker was given, as its two numbers.
local function last_delivered()
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', WORK)) do
    local told = {}
    for i = 1, #group, 2 do told[group[i]] = group[i + 1] end
    if told['name'] == GROUP then
      local ms, place = string.match(told['last-delivered-id'], '^(%d+)-(%d+)$')
      return tonumber(ms), tonumber(place)
    end
  end
end

-- Whether somebody can still come to lease this job, or holds it.
local function is_queued(ordinal)
  local held = job(ordinal, 'entry', 'body')
  if not held or not held.body or not held.entry then return false end
  local found = try('XRANGE', WORK, held.entry, held.entry)
  if found.err or #found == 0 or found[1][2][2] ~= ordinal then return false end
  if #redis.call('XPENDING', WORK, GROUP, held.entry, held.entry, 1) > 0 then return true end
  local last_ms, last_place = last_delivered()
  local ms, place = string.match(held.entry, '^(%d+)-(%d+)$')
  return tonumber(ms) > last_ms or (tonumber(ms) == last_ms and tonumber(place) > last_place)
end

local function has_result(ordinal) return redis.call('EXISTS', result_key(ordinal)) == 1 end

local function release(ordinal)
  local key = job_key(ordinal)
  redis.call('HDEL', key, 'lease')
  local entry = redis.call('HGET', key, 'entry')
  try('XCLAIM', WORK, GROUP, NOBODY, 0, entry, 'TIME', 0, 'JUSTID')
  call_a_worker()
end

local function settle(ordinal, tag, worker, seal, body)
  local held = job(ordinal, 'entry')
  if held and held.entry then
    drop_entry(held.entry)
    redis.call('HDEL', job_key(ordinal), 'entry', 'lease')
  end
  redis.call('SET', result_key(ordinal),
    tag .. struct.pack('>I2', #worker) .. worker .. struct.pack('>I2', #seal) .. seal .. body)
  count(TERM, 'results', 1)
  redis.call('XADD', BELL, 'MAXLEN', 1, '*', 'term', known[1])
end

local function bury(ordinal)
  local key = job_key(ordinal)
  redis.call('HDEL', key, 'lease')
  local held = job(ordinal, 'body', 'seal', 'worker', 'reward_digest', 'num_failures')
  local num_failures = math.min(whole(held.num_failures) or 0, 100)
  local letter = {
    'term', known[1], 'ordinal', ordinal, 'body', held.body, 'worker', held.worker or '',
    'reward_digest', held.reward_digest or '', 'num_failures', num_failures,
  }
  for i = 1, num_failures do
    for _, part in ipairs({'kind', 'message', 'traceback'}) do
      local name = 'failure:' .. i .. ':' .. part
      letter[#letter + 1] = name
      letter[#letter + 1] = redis.call('HGET', key, name) or ''
    end
  end
  redis.call('XADD', LETTERS, 'MAXLEN', 1000, '*', unpack(letter))
  count(TERM, 'dead', 1)
  settle(ordinal, 'd', held.worker or '', held.seal or '', held.body)
end

local function forget_job(ordinal)
  local held = job(ordinal, 'entry')
  if held and held.entry then drop_entry(held.entry) end
  redis.call('DEL', job_key(ordinal))
end

-- Forget ordinals from the frontier up to before; there are none beyond the capacity.
local function forget(before)
  for ordinal = frontier, math.min(before, frontier + capacity) - 1 do
    local name = string.format('%d', ordinal)
    forget_job(name)
    if redis.call('DEL', result_key(name)) == 1 then count(TERM, 'results', -1) end
  end
end
"""

_WHOLE = """
if is_damaged then return {'damaged', 'its term'} end
"""

OPEN_TERM = """
-- ARGV: number, spec, capacity, frontier, lease_ms, same_exception, max_crashes, max_deliveries,
-- run id, seal, 1 to begin afresh
local asked, before, is_afresh = tonumber(ARGV[1]), tonumber(ARGV[4]), ARGV[11] == '1'
local told = try('HMGET', TERM, 'spec', 'run_id')
if not is_afresh then
  if is_damaged then return {'damaged', 'its term'} end
  if number and (told[2] or '') ~= ARGV[9] then return {'other_run', told[2] or ''} end
  if number and asked < number then return {'stale_term', known[1]} end
end

local function is_kind(key, kind)
  local found = redis.call('TYPE', key).ok
  return found == 'none' or found == kind
end

-- Whether jobs can be put, taken and settled: a stream that somebody deleted takes the jobs with
-- it, one whose last entry lies in the future takes no other.
local function is_sound()
  if redis.call('TYPE', WORK).ok ~= 'stream' or not last_delivered() then return false end
  local told = redis.call('XINFO', 'STREAM', WORK)
  for i = 1, #told, 2 do
    if told[i] == 'last-generated-id'
        and tonumber(string.match(told[i + 1], '%d+')) > now_ms() + 60000 then
      return false
    end
  end
  return is_kind(CALLS, 'list') and is_kind(BELL, 'stream') and is_kind(LETTERS, 'stream')
    and is_kind(REFUSED, 'hash') and is_kind(WORKERS, 'set') and is_kind(DRAINING, 'zset')
end

local is_known = not is_afresh and number == asked and is_sound()
if is_known then
  if told[1] ~= ARGV[2] then return {'other_run', told[2] or ''} end
  if before > frontier then forget(before) else before = frontier end
else
  local function clear(term, from, upto)
    for ordinal = from, upto - 1 do
      local name = string.format('%d', ordinal)
      redis.call('DEL', root .. term .. ':job:' .. name, root .. term .. ':result:' .. name)
    end
  end
  if number and not is_damaged then clear(known[1], frontier, frontier + capacity) end
  clear(ARGV[1], before, before + tonumber(ARGV[3]))
  redis.call('DEL', TERM, WORK, CALLS, LETTERS, REFUSED)
  -- Who is here, and waits at the bell, outlives a term.
  if not is_kind(WORKERS, 'set') then redis.call('DEL', WORKERS) end
  if not is_kind(DRAINING, 'zset') then redis.call('DEL', DRAINING) end
  if is_afresh or not is_kind(BELL, 'stream') then redis.call('DEL', BELL) end
  redis.call('XGROUP', 'CREATE', WORK, GROUP, 0, 'MKSTREAM')
end
redis.call('HSET', TERM, 'number', ARGV[1], 'spec', ARGV[2], 'capacity', ARGV[3],
  'frontier', string.format('%d', before), 'lease_ms', ARGV[5], 'same_exception', ARGV[6],
  'max_crashes', ARGV[7], 'max_deliveries', ARGV[8], 'run_id', ARGV[9], 'seal', ARGV[10])
-- Whoever waits in an older term finds out.
if try('XADD', BELL, 'MAXLEN', 1, '*', 'term', ARGV[1]).err then
  redis.call('DEL', BELL)
  redis.call('XADD', BELL, 'MAXLEN', 1, '*', 'term', ARGV[1])
end
return {'ok'}
"""

PUT = """
-- ARGV: term, ordinal, body, seal. Answers 1 if the job was added.
local refused = fence(ARGV[1])
if refused then return refused end
local ordinal = tonumber(ARGV[2])
if ordinal < frontier then return {'ok', 0} end
if ordinal >= frontier + capacity then return {'full', known[2], known[3]} end
if has_result(ARGV[2]) or is_queued(ARGV[2]) then return {'ok', 0} end
local entry = redis.call('XADD', WORK, '*', 'ordinal', ARGV[2])
redis.call('DEL', job_key(ARGV[2]))
redis.call('HSET', job_key(ARGV[2]), 'body', ARGV[3], 'seal', ARGV[4], 'entry', entry)
call_a_worker()
return {'ok', 1}
"""

MISSING = """
-- ARGV: term, ordinals...
local refused = fence(ARGV[1])
if refused then return refused end
local answer = {'ok'}
for i = 2, #ARGV do
  if tonumber(ARGV[i]) >= frontier and not has_result(ARGV[i]) and not is_queued(ARGV[i]) then
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
  local result = try('GET', result_key(ARGV[i]))
  if type(result) == 'table' then
    -- Of another type: nothing that was ever a result.
    redis.call('DEL', result_key(ARGV[i]))
  elseif result then
    answer[#answer + 1] = ARGV[i]
    answer[#answer + 1] = result
  end
end
return answer
"""

REFUSE = """
-- ARGV: term, ordinal, worker, 1 to keep the group
local refused = fence(ARGV[1])
if refused then return refused end
if redis.call('DEL', result_key(ARGV[2])) == 0 then return {'ok'} end
count(TERM, 'results', -1)
local is_named = redis.call('HEXISTS', REFUSED, ARGV[3]) == 1
  or redis.call('HLEN', REFUSED) < MAX_NAMED
count(REFUSED, is_named and ARGV[3] or OTHERS, 1)
local held = job(ARGV[2], 'body', 'num_failures')
if ARGV[4] == '1' and held and held.body then
  local key = job_key(ARGV[2])
  local entry = redis.call('XADD', WORK, '*', 'ordinal', ARGV[2])
  redis.call('HSET', key, 'entry', entry, 'deliveries', whole(held.num_failures) or 0)
  call_a_worker()
else
  forget_job(ARGV[2])
end
return {'ok'}
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
-- ARGV: worker, reward digest, how many. Answers term, then ordinal, body, delivery, lease, seal...
if not number then return {'ok', -1} end
local answer, wanted = {'ok', number}, tonumber(ARGV[3])

local function hand_out(entry, ordinal)
  local key = job_key(ordinal)
  local lease = known[1] .. '/' .. entry .. '/' .. count(TERM, 'leases', 1)
  local delivery = count(key, 'deliveries', 1)
  if delivery > 1 then count(TERM, 'redeliveries', 1) end
  redis.call('HSET', key, 'lease', lease, 'worker', ARGV[1], 'reward_digest', ARGV[2])
  local held = job(ordinal, 'body', 'seal')
  for _, value in ipairs({ordinal, held.body, delivery, lease, held.seal or ''}) do
    answer[#answer + 1] = value
  end
  wanted = wanted - 1
end

for _, held in ipairs(redis.call('XPENDING', WORK, GROUP, 'IDLE', lease_ms, '-', '+', capacity)) do
  if wanted == 0 then break end
  local entry, holder = held[1], held[2]
  local found = redis.call('XRANGE', WORK, entry, entry)[1]
  local ordinal = found and ordinal_of(entry, found[2])
  if not ordinal then
    pass_over(entry)
  else
    local counts = job(ordinal, 'deliveries', 'num_failures')
    local unreported = (whole(counts.deliveries) or 0) - (whole(counts.num_failures) or 0)
    local limit = whole(redis.call('HGET', TERM, 'max_deliveries')) or 1
    if holder ~= NOBODY and unreported >= limit then
      bury(ordinal)
    else
      redis.call('XCLAIM', WORK, GROUP, ARGV[1], 0, entry, 'JUSTID')
      hand_out(entry, ordinal)
    end
  end
end
-- Entries that are no jobs are passed over, though not so many at once that all others wait.
local patience = 10000
while wanted > 0 do
  local read = redis.call(
    'XREADGROUP', 'GROUP', GROUP, ARGV[1], 'COUNT', wanted, 'STREAMS', WORK, '>')
  -- Nothing is left to take, so nobody need be called for it.
  if not read then redis.call('DEL', CALLS) break end
  for _, entry in ipairs(read[1][2]) do
    local ordinal = ordinal_of(entry[1], entry[2])
    if ordinal then hand_out(entry[1], ordinal) else pass_over(entry[1]) end
    patience = patience - 1
  end
  if patience < 0 then break end
end
return answer
"""

RENEW = """
-- ARGV: term, ordinal, worker, lease. Answers 1 if the lease began anew.
local refused = fence(ARGV[1])
if refused and refused[1] ~= 'stale_term' then return refused end
if not is_owner(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return {'ok', 0} end
local entry = redis.call('HGET', job_key(ARGV[2]), 'entry')
local claimed = try('XCLAIM', WORK, GROUP, ARGV[3], 0, entry, 'JUSTID')
return {'ok', (claimed.err or #claimed == 0) and 0 or 1}
"""

COMMIT = """
-- ARGV: term, ordinal, worker, seal, scored. A job that the queue knows nothing of (it was wiped,
-- and the term opened again) is settled all the same: the score is what was waited for.
local refused = fence(ARGV[1])
if refused and refused[1] ~= 'stale_term' then return refused end
local ordinal = tonumber(ARGV[2])
if refused or ordinal < frontier or ordinal >= frontier + capacity then
  count(TERM, 'stale_commits', 1)
  return {'ok', 'stale'}
end
if redis.call('EXISTS', result_key(ARGV[2])) == 1 then
  count(TERM, 'duplicate_commits', 1)
  return {'ok', 'duplicate'}
end
settle(ARGV[2], 's', ARGV[3], ARGV[4], ARGV[5])
return {'ok', 'accepted'}
"""

FAIL = """
-- ARGV: term, ordinal, worker, lease, kind, message, traceback
local refused = fence(ARGV[1])
if refused and refused[1] ~= 'stale_term' then return refused end
if not is_owner(ARGV[1], ARGV[2], ARGV[3], ARGV[4]) then return {'ok', 'stale'} end
local key = job_key(ARGV[2])
redis.call('HDEL', key, 'lease')
local total = count(key, 'num_failures', 1)
local name = 'failure:' .. total .. ':'
redis.call('HSET', key, name .. 'kind', ARGV[5], name .. 'message', ARGV[6],
  name .. 'traceback', ARGV[7])
count(TERM, 'failures:' .. ARGV[5], 1)
local alike = 0
if ARGV[5] == 'exception' or ARGV[5] == 'invalid' then
  alike = count(key, 'alike:' .. redis.sha1hex(ARGV[6]), 1)
end
local limits = redis.call('HMGET', TERM, 'same_exception', 'max_crashes')
if alike >= (whole(limits[1]) or 1) or total >= (whole(limits[2]) or 1) then
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
  count(job_key(ARGV[2]), 'deliveries', -1)
end
return {'ok'}
"""

STATS = """
-- Answers term, frontier, jobs, of them pending, of them held by nobody any more, milliseconds
-- since the oldest was put, a list of workers and their refused results, then counts.
if not number then return {'ok', -1, 0, 0, 0, 0, 0, {}} end
local pending = redis.call('XPENDING', WORK, GROUP)[1]
local loose = #redis.call('XPENDING', WORK, GROUP, 'IDLE', lease_ms, '-', '+', capacity)
local oldest, age = redis.call('XRANGE', WORK, '-', '+', 'COUNT', 1)[1], 0
if oldest then age = math.max(0, now_ms() - tonumber(string.match(oldest[1], '%d+'))) end
local answer = {'ok', number, frontier, redis.call('XLEN', WORK), pending, loose, age,
  redis.call('HGETALL', REFUSED)}
for _, found in ipairs(redis.call('HMGET', TERM, unpack(ARGV))) do
  answer[#answer + 1] = whole(found) or 0
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
  local record = try('HGETALL', worker_key(worker))
  if #record == 0 then
    redis.call('SREM', WORKERS, worker)
  else
    answer[#answer + 1] = record
  end
end
return answer
"""

_NAMES = (
    *("OPEN_TERM", "PUT", "MISSING", "RESULTS", "REFUSE", "FENCE", "CONSUME", "TAKE", "RENEW"),
    *("COMMIT", "FAIL", "GIVE_BACK", "STATS", "HEARTBEAT", "DEREGISTER", "REQUEST_DRAIN"),
    "LIST_WORKERS",
)


def whole_script(name: str) -> str:
    """What Redis is given: the script with what all share before it."""
    text: str = globals()[name]
    return SHARED + ("" if name == "OPEN_TERM" else _WHOLE) + text


def every_script() -> list[str]:
    """All that a queue runs."""
    return [whole_script(name) for name in _NAMES]
