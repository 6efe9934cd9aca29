#!lua flags=allow-oom
-- Redrives dead jobs with fresh budgets, each once (DLQ-2), or discards them (DLQ-3).
-- KEYS  meta body state ready dead dead_expiry letter history ended wake last
-- ARGV  request, keep_ms, 'redrive' or 'discard', the last death to include, the most to take, then ids ('*' alone
--         for all)
-- Return a string: how many, how many it looked at, and the number of the last death
-- Error  NOQUEUE, STALE
-- Cost  O(log n) a job; to discard, a look through the last 10,000 that ended as well

local kind = redis.call('HGET', meta, 'kind')
if not kind then return redis.error_reply('NOQUEUE') end
local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end
local how, upto, most = ARGV[3], ARGV[4], ARGV[5]
if upto == '' then upto = redis.call('ZRANGE', dead, -1, -1, 'WITHSCORES')[2] or '0' end

local ids = {}
if ARGV[6] == '*' then
  ids = redis.call('ZRANGE', dead, '-inf', upto, 'BYSCORE', 'LIMIT', 0, most)
else
  local wanted = {}
  for i = 6, #ARGV do wanted[#wanted + 1] = ARGV[i] end
  for i, score in ipairs(redis.call('ZMSCORE', dead, unpack(wanted))) do
    if score then ids[#ids + 1] = wanted[i] end
  end
end
local looked_at, kept = #ids, {}
local is_gone = remove_expired({ dead = dead, dead_expiry = dead_expiry, body = body, state = state, letter = letter,
  history = history, ended = ended }, ids, now_ms())
for _, id in ipairs(ids) do
  if not is_gone[id] then kept[#kept + 1] = id end
end
ids = kept
local answer = #ids .. ' ' .. looked_at .. ' ' .. upto
keep_answer(last, ARGV[1], answer, ARGV[2])
if #ids == 0 then return answer end

redis.call('ZREM', dead, unpack(ids))
redis.call('ZREM', dead_expiry, unpack(ids))
redis.call('HDEL', letter, unpack(ids))
redis.call('HDEL', history, unpack(ids))
if how == 'discard' then
  redis.call('HDEL', state, unpack(ids))
  redis.call('HDEL', body, unpack(ids))
  forget_ends(ended, ids)
  return answer
end
local states, records = {}, {}
for i, record in ipairs(redis.call('HMGET', state, unpack(ids))) do
  local job = record and unpack_state(record) or fresh_state(0)
  job.attempt, job.crashes = 1, 0
  states[i] = job
end
local must_wake = ready_count(kind, ready) == 0
make_ready(kind, meta, ready, ids, states)
for i, id in ipairs(ids) do
  records[2 * i - 1] = id
  records[2 * i] = pack_state(states[i])
end
redis.call('HSET', state, unpack(records))
if must_wake then wake_up(wake) end
return answer
