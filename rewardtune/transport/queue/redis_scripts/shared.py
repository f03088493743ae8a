"""Lua that every script begins with: what it knows of the queue, and what several of them do."""

from __future__ import annotations

SHARED = """
local TERM = KEYS[1]
local root = string.sub(TERM, 1, -5)
local WORK, CALLS, BELL = root .. 'work', root .. 'calls', root .. 'bell'
local LETTERS, WORKERS, DRAINING = root .. 'letters', root .. 'workers', root .. 'draining'
local REFUSED = root .. 'refused'
local GROUP, NOBODY, OTHERS, MAX_NAMED = 'workers', '(nobody)', '(others)', 100

-- A whole number that can be counted with exactly; nothing else is a number.
local function whole(text)
  local value = tonumber(text or nil)
  if value and value >= 0 and value < 9007199254740992 and value % 1 == 0 then return value end
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
  -- What is no entry's name cannot be deleted either.
  if type(try('XACK', WORK, GROUP, entry)) == 'number' then redis.call('XDEL', WORK, entry) end
end

-- The job that an entry is of, with its ordinal; nothing where it is of none.
local function job_of(entry, fields)
  local ordinal = fields[2]
  local number = #fields == 2 and fields[1] == 'ordinal' and whole(ordinal)
  if not number or number < frontier or number >= frontier + capacity then return end
  local held = try('HMGET', job_key(ordinal), 'entry', 'body', 'seal')
  if held.err or held[1] ~= entry or not held[2] then return end
  return {ordinal = ordinal, body = held[2], seal = held[3] or ''}
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

local function settle(ordinal, result)
  local key = job_key(ordinal)
  local entry = try('HGET', key, 'entry')
  if type(entry) == 'string' then
    drop_entry(entry)
    redis.call('HDEL', key, 'entry', 'lease')
  end
  redis.call('SET', result_key(ordinal), result)
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
  local worker, seal = held.worker or '', held.seal or ''
  settle(ordinal, 'd' .. struct.pack('>I2', #worker) .. worker
    .. struct.pack('>I2', #seal) .. seal .. held.body)
end

local function forget_job(ordinal)
  local key = job_key(ordinal)
  local entry = try('HGET', key, 'entry')
  if type(entry) == 'string' then drop_entry(entry) end
  redis.call('DEL', key)
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
