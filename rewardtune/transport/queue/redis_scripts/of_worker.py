"""Scripts of reward workers."""

from __future__ import annotations

TAKE = """
-- ARGV: worker, reward digest, how many. Answers term, then ordinal, body, delivery, lease, seal...
if not number then return {'ok', -1} end
local answer, wanted = {'ok', number}, tonumber(ARGV[3])

local function hand_out(entry, held)
  local key = job_key(held.ordinal)
  local lease = known[1] .. '/' .. entry .. '/' .. count(TERM, 'leases', 1)
  local delivery = count(key, 'deliveries', 1)
  if delivery > 1 then count(TERM, 'redeliveries', 1) end
  redis.call('HSET', key, 'lease', lease, 'worker', ARGV[1], 'reward_digest', ARGV[2])
  for _, value in ipairs({held.ordinal, held.body, delivery, lease, held.seal}) do
    answer[#answer + 1] = value
  end
  wanted = wanted - 1
end

for _, loose in ipairs(redis.call('XPENDING', WORK, GROUP, 'IDLE', lease_ms, '-', '+', capacity)) do
  if wanted == 0 then break end
  local entry, holder = loose[1], loose[2]
  local found = redis.call('XRANGE', WORK, entry, entry)[1]
  local held = found and job_of(entry, found[2])
  if not held then
    pass_over(entry)
  else
    local counts = job(held.ordinal, 'deliveries', 'num_failures')
    local unreported = (whole(counts.deliveries) or 0) - (whole(counts.num_failures) or 0)
    local limit = whole(redis.call('HGET', TERM, 'max_deliveries')) or 1
    if holder ~= NOBODY and unreported >= limit then
      bury(held.ordinal)
    else
      redis.call('XCLAIM', WORK, GROUP, ARGV[1], 0, entry, 'JUSTID')
      hand_out(entry, held)
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
    local held = job_of(entry[1], entry[2])
    if held then hand_out(entry[1], held) else pass_over(entry[1]) end
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
-- ARGV: term, ordinal, result as it is stored. A job that the queue knows nothing of (it was wiped,
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
settle(ARGV[2], ARGV[3])
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
