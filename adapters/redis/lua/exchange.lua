#!lua flags=allow-oom
-- Settles what a consumer has done, and leases it the next jobs: one step, one round trip (SET, RCV, LSE, RES).
-- KEYS  meta body state ready run delay dead letter history result expiry ended wake rwake last
-- ARGV  request, consumer, lease_ms, keep_ms, take, number of runs of plain acks, then token and ids of each (as
--         id,id...: one argument is parsed sooner than hundreds), then op, id, token, text, number of every other
--         settlement:
--         'a' ack: result, ttl_ms · 'r' retry: error, delay_ms · 'd' and the reason: error, - · 'l' release
-- Return {now, next event, wake id, outcomes, ids, bodies, infos}: outcomes a string of 1 and 0, in the order of
--         ARGV; next event (-1 for none) and wake id only where nothing was taken; an info is
--         attempt:number:crashes, empty for a first delivery, ! where the job's record is damaged (it is leased, for
--         the consumer to bury it) or = where it is in flight already (it isn't leased); no infos where all are first
--         deliveries. The token of each lease is consumer:request
-- Error  NOQUEUE, STALE
-- Cost  O(1) a job for ready, O(log n) for leases, delays and sorted queues; at most 500 due and 500 expired a call

local meta, body, state, ready, run, delay, dead, letter, history, result, expiry, ended, wake, rwake, last =
  unpack(KEYS)
local request, consumer, lease_ms, keep_ms, take = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local SWEPT, KEPT_HISTORY, KEPT_ENDS = 500, 10, 10000

local about = redis.call('HMGET', meta, 'kind', 'rwait', 'stand')
local kind, waited_until, stand = about[1], tonumber(about[2]), tonumber(about[3])
if not kind then return redis.error_reply('NOQUEUE') end
local now = now_ms()

local function answer(outcomes, ids, infos)
  local bodies = {}
  if #ids > 0 then
    bodies = redis.call('HMGET', body, unpack(ids))
    return { now, -1, '', outcomes, ids, bodies, infos }
  end
  local due, expires = first_score(delay), first_score(run)
  if expires and stand then expires = math.max(expires, stand) end
  local event = -1
  if due and expires then event = math.min(due, expires) else event = due or expires or -1 end
  local newest = redis.call('XREVRANGE', wake, '+', '-', 'COUNT', 1)[1]
  return { now, event, newest and newest[1] or '0-0', outcomes, ids, bodies, infos }
end

-- What is remembered of an answer: outcomes|number of ids|id,id...|info,info...
local function split(list)
  local items = {}
  if list == '' then return items end
  for item in string.gmatch(list .. ',', '([^,]*),') do items[#items + 1] = item end
  return items
end
local before, stale = answered_before(last, request)
if stale then return redis.error_reply('STALE') end
if before then
  local outcomes, count, ids, infos = string.match(before, '^([^|]*)|(%d+)|(.*)|([^|]*)$')
  ids, infos = split(ids), split(infos)
  if #ids ~= tonumber(count) then ids, infos = {}, {} end -- one has a comma, so that they can't be told apart
  return answer(outcomes, ids, infos)
end

-- What is due, and what was leased too long.
local due = redis.call('ZRANGE', delay, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
if #due > 0 then
  redis.call('ZREM', delay, unpack(due))
  local states = {}
  if kind ~= 'fifo' then
    for i, record in ipairs(redis.call('HMGET', state, unpack(due))) do
      states[i] = record and unpack_state(record) or fresh_state(0)
    end
  end
  make_ready(kind, meta, ready, due, states)
end
local expired = redis.call('ZRANGE', run, '-inf', over_until(stand, now), 'BYSCORE', 'LIMIT', 0, SWEPT)
if #expired > 0 then
  redis.call('ZREM', run, unpack(expired))
  local states, records = {}, {}
  for i, record in ipairs(redis.call('HMGET', state, unpack(expired))) do
    local job = record and unpack_state(record)
    states[i] = job or fresh_state(0)
    if job then -- else whoever is delivered the job finds its record damaged
      job.crashes = job.crashes + 1
      job.token = ''
      records[#records + 1] = expired[i]
      records[#records + 1] = pack_state(job)
    end
  end
  if #records > 0 then redis.call('HSET', state, unpack(records)) end
  give_back(kind, ready, expired, states)
end

-- Settlements. Each is checked against its lease's token before anything is written for it.
local settled_ids, tokens, firsts, acks, others = {}, {}, {}, 0, 7
for _ = 1, tonumber(ARGV[6]) do
  local token = ARGV[others]
  local first = FIRST_DELIVERY .. token
  for id in string.gmatch(ARGV[others + 1], '[^,]+') do
    acks = acks + 1
    settled_ids[acks] = id
    tokens[acks], firsts[acks] = token, first
  end
  others = others + 2
end
local settled = acks + (#ARGV - others + 1) / 5
local outcomes = {}
local must_wake, must_plan = false, false
if settled > 0 then
  local ids = settled_ids
  for i = acks + 1, settled do ids[i] = ARGV[others + 5 * (i - acks - 1) + 1] end
  local records = redis.call('HMGET', state, unpack(ids))
  local over, done, returned, returned_states = {}, {}, {}, {}
  local sub, silent = string.sub, 0
  for i = 1, acks do
    local record = records[i]
    if record == firsts[i] or record and sub(record, RECORD + 1) == tokens[i] then
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
    local at = others + 5 * (i - acks - 1)
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
        local job = unpack_state(record) or fresh_state(0)
        job.token = ''
        if what == 'r' then
          local failures = read_history(redis.call('HGET', history, id))
          failures[#failures + 1] = { job.attempt, text }
          while #failures > KEPT_HISTORY do table.remove(failures, 1) end
          redis.call('HSET', history, id, cjson.encode(failures))
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
          local name = id
          if id == '' or #id > 128 or string.find(id, '[^%w._-]') then -- no command could name it
            name = 'malformed-' .. redis.sha1hex(id)
            for _, key in ipairs({ body, history }) do
              local kept = redis.call('HGET', key, id)
              redis.call('HDEL', key, id)
              if kept then redis.call('HSET', key, name, kept) end
            end
            redis.call('HDEL', state, id)
          end
          if redis.call('HEXISTS', body, name) == 1 then
            local latest = tonumber(redis.call('ZRANGE', dead, -1, -1, 'WITHSCORES')[2]) or 0
            local number_of_death = take_numbers(meta, 'deaths', 1, latest < LEVEL and latest or 0) + 1
            redis.call('ZADD', dead, number_of_death, name)
            redis.call('HSET', letter, name, cjson.encode({ string.sub(op, 2), text, now }))
            redis.call('HSET', state, name, pack_state(job))
          else -- there is nothing to bury
            redis.call('HDEL', state, name)
            redis.call('HDEL', history, name)
          end
        else
          returned[#returned + 1] = id
          returned_states[#returned_states + 1] = job
        end
        if what ~= 'd' then redis.call('HSET', state, id, pack_state(job)) end
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
    wake_up(rwake)
    redis.call('PEXPIRE', rwake, 600000)
  end
end

-- The next jobs.
local ids, infos, all_first = {}, {}, true
local scores = {}
if take > 0 and kind ~= 'fifo' then
  local popped = redis.call('ZPOPMIN', ready, take)
  for i = 1, #popped, 2 do
    ids[#ids + 1] = popped[i]
    scores[#ids] = tonumber(popped[i + 1])
  end
elseif take > 0 then
  ids = redis.call('LPOP', ready, take) or ids
end
if #ids > 0 then
  local records, leases, leased = {}, {}, 0
  local token = consumer .. ':' .. request
  local first, lease_ends = FIRST_DELIVERY .. token, string.format('%.0f', now + lease_ms)
  for i, record in ipairs(redis.call('HMGET', state, unpack(ids))) do
    if record or scores[i] then
      all_first = false
      local job = fresh_state(0)
      if record then job = unpack_state(record) end
      if job and scores[i] then
        job.priority = 9 - math.floor(scores[i] / LEVEL)
        job.place = scores[i] % LEVEL
      end
      if not job or not is_sound(job) then
        record, infos[i] = first, '!'
      elseif job.token ~= '' and redis.call('ZMSCORE', run, ids[i])[1] then
        record, infos[i] = nil, '='
      else
        job.number = job.number + 1
        job.token = token
        record = pack_state(job)
        infos[i] = job.attempt .. ':' .. job.number .. ':' .. job.crashes
      end
    else
      record = first
      infos[i] = ''
    end
    if record then
      leased = leased + 1
      records[2 * leased - 1] = ids[i]
      records[2 * leased] = record
      leases[2 * leased - 1] = lease_ends
      leases[2 * leased] = ids[i]
    end
  end
  if leased > 0 then
    redis.call('HSET', state, unpack(records))
    if redis.call('ZADD', run, unpack(leases)) < leased then -- one stood in the queue twice
      local seen = {}
      for i, id in ipairs(ids) do
        if seen[id] then infos[i], all_first = '=', false end
        seen[id] = true
      end
    end
  end
end
-- Whoever waits is to take what came back and is still here, or to plan for a moment that was just set.
if must_plan or (must_wake and (#ids == 0 or ready_count(kind, ready) > 0)) then wake_up(wake) end

local outcome = table.concat(outcomes)
if all_first then infos = {} end
remember(last, request, outcome .. '|' .. #ids .. '|' .. table.concat(ids, ',') .. '|' .. table.concat(infos, ','), keep_ms)
return answer(outcome, ids, infos)
