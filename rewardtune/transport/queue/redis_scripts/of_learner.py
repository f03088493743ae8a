"""Scripts of the learner, of whoever places draws and of operators."""

from __future__ import annotations

OPEN_TERM = """
-- ARGV: number, spec, capacity, frontier, lease_ms, same_exception, max_crashes, max_deliveries,
-- run id, seal, 1 to begin afresh
local asked, before, is_afresh = tonumber(ARGV[1]), tonumber(ARGV[4]), ARGV[11] == '1'
local told = try('HMGET', TERM, 'spec', 'run_id')
if not is_afresh then
  if is_damaged then return {'damaged', 'its term'} end
  -- A term without an id was opened before there were any.
  local run_id = told[2] or ''
  if number and run_id ~= '' and run_id ~= ARGV[9] then return {'other_run', run_id} end
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
local key = job_key(ARGV[2])
local is_there = redis.call('EXISTS', key, result_key(ARGV[2])) > 0
if is_there and (has_result(ARGV[2]) or is_queued(ARGV[2])) then return {'ok', 0} end
local entry = redis.call('XADD', WORK, '*', 'ordinal', ARGV[2])
if is_there then redis.call('DEL', key) end
redis.call('HSET', key, 'body', ARGV[3], 'seal', ARGV[4], 'entry', entry)
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
