-- Functions that the scripts share. Blank lines set them apart: a script gets those that it uses, as each is made anew
-- whenever a script runs (scripts.py).
--
-- A job's record in `state` is packed: priority, attempt, crashes, deliveries, place, and behind them the token
-- of its lease while it is leased. A job that nothing happened to yet has no record. Times are milliseconds by
-- the server's clock.

local FORMAT = '>I1I4I4I4d'
local RECORD = 21
local LEVEL = 281474976710656 -- 2^48: in a sorted queue, a job's score is (9 - priority) * LEVEL + place

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- What the coordination store times: in microseconds, which a number holds exactly.
local function now_us()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

-- The moment up to which leases have ended; 0 while all of them stand after an outage (protect_leases.lua).
local function over_until(stand, now)
  local moment = tonumber(stand)
  return moment and now < moment and 0 or now
end

-- Whether a job has numbers that a job can have.
local function is_sound(job)
  return job.priority >= 0 and job.priority <= 9 and job.attempt > 0 and job.place >= 0 and job.place < LEVEL
end

-- Reads a record; returns nil where it is damaged.
local function unpack_state(record)
  if #record < RECORD then return nil end
  local priority, attempt, crashes, number, place = struct.unpack(FORMAT, record)
  local job = { priority = priority, attempt = attempt, crashes = crashes, number = number, place = place,
                token = string.sub(record, RECORD + 1) }
  return is_sound(job) and job or nil
end

local function pack_state(job)
  return struct.pack(FORMAT, job.priority, job.attempt, job.crashes, job.number, job.place) .. job.token
end

local function fresh_state(priority)
  return { priority = priority, attempt = 1, crashes = 0, number = 0, place = 0, token = '' }
end

-- What most jobs are when they are delivered: nothing happened to them before. Saves packing and unpacking.
local FIRST_DELIVERY = struct.pack(FORMAT, 0, 1, 0, 1, 0)

local function score_of(job)
  return (9 - job.priority) * LEVEL + job.place
end

-- Takes `count` numbers that nobody else is given from a counter in `meta`, and returns the one before the first. A
-- counter that holds none, or one out of range, goes on after `least`.
local function take_numbers(meta, counter, count, least)
  local last = tonumber(redis.call('HGET', meta, counter) or 0)
  if not (last and last >= least and last < LEVEL) then last = least end
  redis.call('HSET', meta, counter, string.format('%.0f', last + count))
  return last
end

-- Makes ids ready in the order given, and returns how many are ready then. A fifo is a list: O(1) each. The other kinds
-- are sorted sets, O(log n): places count up on a priority queue, and down on a stack.
local function make_ready(kind, meta, ready, ids, states)
  if kind == 'fifo' then return redis.call('RPUSH', ready, unpack(ids)) end
  local last = take_numbers(meta, 'place', #ids, 0)
  local scores = {}
  for i, id in ipairs(ids) do
    states[i].place = kind == 'stack' and LEVEL - last - i or last + i
    scores[2 * i - 1] = score_of(states[i])
    scores[2 * i] = id
  end
  redis.call('ZADD', ready, unpack(scores))
  return redis.call('ZCARD', ready)
end

-- Puts ids back where they stood (ORD-4), at the same cost. On a fifo that is the head.
local function put_back(kind, ready, ids, states)
  if kind ~= 'fifo' then
    local scores = {}
    for i, id in ipairs(ids) do
      scores[2 * i - 1] = score_of(states[i])
      scores[2 * i] = id
    end
    redis.call('ZADD', ready, unpack(scores))
    return
  end
  for i = #ids, 1, -1 do
    redis.call('LPUSH', ready, ids[i])
  end
end

local function ready_count(kind, ready)
  return redis.call(kind == 'fifo' and 'LLEN' or 'ZCARD', ready)
end

-- A request that must not be applied twice is numbered by its sender, and `last` keeps the number and the answer of
-- the sender's last one. Sent again because the answer was lost, it is answered as before: returns that answer.
-- Late, it is STALE: its sender gave it up, or was answered on another connection, and has gone on since; returns
-- nil, true.
local function answered_before(last, request)
  local before = redis.call('GET', last)
  if not before then return nil, false end
  local number = string.match(before, '^%d+') or '0'
  if number == request then return string.sub(before, #number + 2), false end
  return nil, tonumber(number) > tonumber(request)
end

local function keep_answer(last, request, answer, keep_ms)
  redis.call('SET', last, request .. '|' .. answer, 'PX', keep_ms)
end

-- Wakes whoever waits on this stream: what is read consumes nothing, so one that dies swallows no wake-up. Keeping just
-- the last entry, and not up to a hundred, would nearly double what it costs to add one.
local function wake_up(wake)
  redis.call('XADD', wake, 'MAXLEN', '~', 1, '*', 'w', 1)
end

-- Wakes those who wait for results, and says of which jobs. As many wake-ups are kept as one may miss who is looking up
-- what the last said. They are gone ten minutes after the last of them.
local function wake_with_ids(wake, ids)
  redis.call('XADD', wake, 'MAXLEN', '~', 1000, '*', 'ids', table.concat(ids, ','))
  redis.call('PEXPIRE', wake, 600000)
end

-- Announces that somebody waits for results, for another while. Wake-ups are sent only while somebody does, and `rsince` is
-- when the present such time began, as long as it lasts: returns that. One who was told another missed some.
local function announce_wait(meta, waited_until, since, now, wait_ms)
  if not since or waited_until <= now then
    since = string.format('%.0f', now)
    redis.call('HSET', meta, 'rsince', since)
  end
  if now + wait_ms > waited_until then redis.call('HSET', meta, 'rwait', now + wait_ms) end
  return since
end

-- Forgets that jobs of these ids ended, in an earlier life of theirs. O(length of `ended`), and so only for what is
-- done seldom.
local function forget_ends(ended, ids)
  local gone, kept = {}, {}
  for _, id in ipairs(ids) do gone[id] = true end
  local all = redis.call('LRANGE', ended, 0, -1)
  for _, id in ipairs(all) do
    if not gone[id] then kept[#kept + 1] = id end
  end
  if #kept == #all then return end
  redis.call('UNLINK', ended)
  for i = 1, #kept, 1000 do
    redis.call('RPUSH', ended, unpack(kept, i, math.min(i + 999, #kept)))
  end
end

-- Whether the time of a dead letter is over; it may still have to be removed (DLQ-5).
local function is_expired(dead_expiry, id, now)
  local ends = redis.call('ZMSCORE', dead_expiry, id)[1]
  return ends and tonumber(ends) <= now
end

-- Removes dead letters with all that is known of their jobs; `of` has the keys of their queue, by name.
local function remove_dead(of, ids)
  redis.call('ZREM', of.dead, unpack(ids))
  redis.call('ZREM', of.dead_expiry, unpack(ids))
  for _, name in ipairs({ 'body', 'state', 'letter', 'history' }) do redis.call('HDEL', of[name], unpack(ids)) end
  forget_ends(of.ended, ids)
end

-- Removes those of these dead letters whose time is over, and returns a set of their ids.
local function remove_expired(of, ids, now)
  local gone, is_gone = {}, {}
  if #ids == 0 or redis.call('EXISTS', of.dead_expiry) == 0 then return is_gone end
  for i, ends in ipairs(redis.call('ZMSCORE', of.dead_expiry, unpack(ids))) do
    if ends and tonumber(ends) <= now then
      gone[#gone + 1] = ids[i]
      is_gone[ids[i]] = true
    end
  end
  if #gone > 0 then remove_dead(of, gone) end
  return is_gone
end

-- Which of these jobs are asked to be cancelled, under the tokens of their leases as the records have them: how long to
-- remember that (ms), by id. A request of an earlier lease, or of an earlier job of the same id, is none.
local function read_asked(asked, ids, records)
  local found = {}
  for i, request in ipairs(redis.call('HMGET', asked, unpack(ids))) do
    if request and records[i] then
      local ttl, token = string.match(request, '^(%d+)|(.*)$')
      if ttl and token == string.sub(records[i], RECORD + 1) then found[ids[i]] = tonumber(ttl) end
    end
  end
  return found
end

-- Forgets that jobs are asked to be cancelled; `meta` counts those that are, so that few scripts need look.
local function forget_asked(meta, asked, ids)
  redis.call('HDEL', asked, unpack(ids))
  redis.call('HSET', meta, 'asked', redis.call('HLEN', asked))
end

-- Remembers that a job was cancelled: as a result whose time is negative, and which is empty.
local function keep_cancelled(result, expiry, id, now, ttl)
  redis.call('HSET', result, id, struct.pack('>d', -(now + ttl)))
  redis.call('ZADD', expiry, now + ttl, id)
  for _, key in ipairs({ result, expiry }) do
    if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, ttl) end
  end
end

-- Takes ids out of a list. One or a few are looked for one by one; of many, all are found in one look, which reads the
-- list in parts.
local function remove_from_list(list, ids)
  local FEW, PART = 4, 10000
  if #ids <= FEW then
    for _, id in ipairs(ids) do redis.call('LREM', list, 1, id) end
    return
  end
  local gone, found, tombstone = {}, 0, string.rep('~', 129)
  for _, id in ipairs(ids) do gone[id] = true end
  for start = 0, redis.call('LLEN', list) - 1, PART do
    for i, id in ipairs(redis.call('LRANGE', list, start, start + PART - 1)) do
      if gone[id] then
        redis.call('LSET', list, start + i - 1, tombstone)
        found = found + 1
      end
    end
    if found >= #ids then break end
  end
  redis.call('LREM', list, 0, tombstone)
end

-- The failed attempts of a job, as `history` keeps them: [[attempt, error], …]. What is damaged is left out.
local function read_history(text)
  local ok, found = pcall(cjson.decode, text or '[]')
  local failures = {}
  if not ok or type(found) ~= 'table' then return failures end
  for _, failure in ipairs(found) do
    if type(failure) == 'table' and type(failure[1]) == 'number' and type(failure[2]) == 'string' then
      failures[#failures + 1] = { failure[1], failure[2] }
    end
  end
  return failures
end

-- When the first of a sorted set of moments is, or nil.
local function first_score(zset)
  local score = tonumber(redis.call('ZRANGE', zset, 0, 0, 'WITHSCORES')[2])
  return score ~= math.huge and score or nil
end

-- Returns the version that a record of the coordination store has at a moment: 0 if there is none, or its time is over.
-- A record is packed: its version and when its time is over, and behind them the value.
local function version_at(record, now)
  if not record or #record < 16 then return 0 end
  local version, ends = struct.unpack('>dd', record)
  return now < ends and version or 0
end
