#!lua flags=allow-oom
-- Settles what a consumer has done, and leases it the next jobs: one step, one round trip (SET, RCV, LSE, RES).
-- KEYS  meta body state ready run delay dead letter history result expiry ended wake rwake last
-- ARGV  request, consumer, lease_ms, keep_ms, take, number of plain acks, then id, token of each, then op, id,
--         token, text, number of every other settlement:
--         'a' ack: result, ttl_ms · 'r' retry: error, delay_ms · 'd' and the reason: error, - · 'l' release
-- Return {now, next event, wake id, outcomes, ids, bodies, infos}: outcomes a string of 1 and 0, in the order of
--         ARGV; next event (-1 for none) and wake id only where nothing was taken; an info is
--         attempt:number:crashes, or empty for a first delivery
-- Error  NOQUEUE, STALE
-- Cost  O(1) a job for ready, O(log n) for leases, delays and priorities; at most 500 due and 500 expired a call

local meta, body, state, ready, run, delay, dead, letter, history, result, expiry, ended, wake, rwake, last =
  unpack(KEYS)
local request, consumer, lease_ms, keep_ms, take = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local acks = tonumber(ARGV[6])
local SWEPT, KEPT_HISTORY, KEPT_ENDS = 500, 10, 10000

local about = redis.call('HMGET', meta, 'kind', 'rwait')
local kind, waited_until = about[1], tonumber(about[2])
if not kind then return redis.error_reply('NOQUEUE') end
local now = now_ms()

local function answer(outcomes, ids, infos)
  local bodies = {}
  if #ids > 0 then
    bodies = redis.call('HMGET', body, unpack(ids))
    return { now, -1, '', outcomes, ids, bodies, infos }
  end
  local due, expires = first_score(delay), first_score(run)
  local event = -1
  if due and expires then event = math.min(due, expires) else event = due or expires or -1 end
  local newest = redis.call('XREVRANGE', wake, '+', '-', 'COUNT', 1)[1]
  return { now, event, newest and newest[1] or '0-0', outcomes, ids, bodies, infos }
end

-- What is remembered of an answer: outcomes|id|info|id|info...
local before, stale = answered_before(last, request)
if stale then return redis.error_reply('STALE') end
if before then
  local fields, ids, infos = {}, {}, {}
  for field in string.gmatch(before .. '|', '([^|]*)|') do fields[#fields + 1] = field end
  for i = 2, #fields - 1, 2 do
    ids[#ids + 1] = fields[i]
    infos[#infos + 1] = fields[i + 1]
  end
  return answer(fields[1], ids, infos)
end

-- What is due, and what was leased too long.
local due = redis.call('ZRANGE', delay, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
if #due > 0 then
  redis.call('ZREM', delay, unpack(due))
  local states = {}
  if kind == 'priority' then
    for i, record in ipairs(redis.call('HMGET', state, unpack(due))) do
      states[i] = record and unpack_state(record) or fresh_state(0)
    end
  end
  make_ready(kind, meta, ready, due, states)
end
local expired = redis.call('ZRANGE', run, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
if #expired > 0 then
  redis.call('ZREM', run, unpack(expired))
  local states, records = {}, {}
  for i, record in ipairs(redis.call('HMGET', state, unpack(expired))) do
    local job = unpack_state(record)
    job.crashes = job.crashes + 1
    job.token = ''
    states[i] = job
    records[2 * i - 1] = expired[i]
    records[2 * i] = pack_state(job)
  end
  redis.call('HSET', state, unpack(records))
  give_back(kind, ready, expired, states)
end

-- Settlements. Each is checked against its lease's token before anything is written for it.
local OTHERS = 7 + 2 * acks
local settled = acks + (#ARGV - OTHERS + 1) / 5
local outcomes = {}
local must_wake, must_plan = false, false
if settled > 0 then
  local ids = {}
  for i = 1, acks do ids[i] = ARGV[5 + 2 * i] end
  for i = acks + 1, settled do ids[i] = ARGV[OTHERS + 5 * (i - acks - 1) + 1] end
  local records = redis.call('HMGET', state, unpack(ids))
  local over, done, returned, returned_states = {}, {}, {}, {}
  local sub, silent = string.sub, 0
  for i = 1, acks do
    local record = records[i]
    if record and sub(record, RECORD + 1) == ARGV[6 + 2 * i] then
      outcomes[i] = '1'
      silent = silent + 1
      done[silent] = ids[i]
      over[silent] = ids[i]
    else
      outcomes[i] = '0'
    end
  end
  if silent > 0 then
    redis.call('LPUSH', ended, unpack(done))
    redis.call('LTRIM', ended, 0, KEPT_ENDS - 1)
  end
  for i = acks + 1, settled do
    local id, record = ids[i], records[i]
    local at = OTHERS + 5 * (i - acks - 1)
    local op, token, text, number = ARGV[at], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
    if not record or string.sub(record, RECORD + 1) ~= token then
      outcomes[i] = '0'
    else
      outcomes[i] = '1'
      over[#over + 1] = id
      local what = string.sub(op, 1, 1)
      if what == 'a' then
        done[#done + 1] = id
        redis.call('HSET', result, id, struct.pack('>d', now + number) .. text)
        redis.call('ZADD', expiry, now + number, id)
        for _, key in ipairs({ result, expiry }) do
          if redis.call('PTTL', key) < number then redis.call('PEXPIRE', key, number) end
        end
      else
        local job = unpack_state(record)
        job.token = ''
        if what == 'r' then
          local errors = cjson.decode(redis.call('HGET', history, id) or '[]')
          errors[#errors + 1] = { job.attempt, text }
          if #errors > KEPT_HISTORY then table.remove(errors, 1) end
          redis.call('HSET', history, id, cjson.encode(errors))
          job.attempt = job.attempt + 1
          if number > 0 then
            local first = first_score(delay)
            redis.call('ZADD', delay, now + number, id)
            must_plan = must_plan or not first or now + number < first
          else
            must_wake = true
            make_ready(kind, meta, ready, { id }, { job })
          end
        elseif what == 'd' then
          redis.call('ZADD', dead, redis.call('HINCRBY', meta, 'deaths', 1), id)
          redis.call('HSET', letter, id, cjson.encode({ string.sub(op, 2), text, now }))
        else
          returned[#returned + 1] = id
          returned_states[#returned_states + 1] = job
        end
        redis.call('HSET', state, id, pack_state(job))
      end
    end
  end
  if #over > 0 then redis.call('ZREM', run, unpack(over)) end
  if #done > 0 then
    redis.call('HDEL', state, unpack(done))
    redis.call('HDEL', body, unpack(done))
    if redis.call('EXISTS', history) == 1 then redis.call('HDEL', history, unpack(done)) end
  end
  if #returned > 0 then
    give_back(kind, ready, returned, returned_states)
    must_wake = true
  end
  local outdated = redis.call('ZRANGE', expiry, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
  if #outdated > 0 then
    redis.call('ZREM', expiry, unpack(outdated))
    redis.call('HDEL', result, unpack(outdated))
  end
  if #over > 0 and waited_until and waited_until > now then
    redis.call('XADD', rwake, 'MAXLEN', 1, '*', 'w', 1)
    redis.call('PEXPIRE', rwake, 600000)
  end
end

-- The next jobs.
local ids, infos = {}, {}
local count = math.min(take, ready_count(kind, ready))
if count > 0 then
  local places = {}
  if kind == 'priority' then
    local popped = redis.call('ZPOPMIN', ready, count)
    for i = 1, #popped, 2 do
      ids[#ids + 1] = popped[i]
      places[#ids] = tonumber(popped[i + 1])
    end
  else
    ids = redis.call(kind == 'stack' and 'RPOP' or 'LPOP', ready, count)
  end
  local records, leases = {}, {}
  local token = consumer .. ':' .. request .. ':'
  for i, record in ipairs(redis.call('HMGET', state, unpack(ids))) do
    if record or places[i] then
      local job = record and unpack_state(record) or fresh_state(0)
      if places[i] then
        job.priority = 9 - math.floor(places[i] / LEVEL)
        job.place = places[i] % LEVEL
      end
      job.number = job.number + 1
      job.token = token .. i
      record = pack_state(job)
      infos[i] = job.attempt .. ':' .. job.number .. ':' .. job.crashes
    else
      record = FIRST_DELIVERY .. token .. i
      infos[i] = ''
    end
    records[2 * i - 1] = ids[i]
    records[2 * i] = record
    leases[2 * i - 1] = now + lease_ms
    leases[2 * i] = ids[i]
  end
  redis.call('HSET', state, unpack(records))
  redis.call('ZADD', run, unpack(leases))
end
-- Whoever waits is to take what came back and is still here, or to plan for a moment that was just set.
if must_plan or (must_wake and (#ids == 0 or ready_count(kind, ready) > 0)) then wake_up(wake) end

local outcome = table.concat(outcomes)
local record = { outcome }
for i, id in ipairs(ids) do
  record[#record + 1] = id
  record[#record + 1] = infos[i]
end
remember(last, request, table.concat(record, '|'), keep_ms)
return answer(outcome, ids, infos)
