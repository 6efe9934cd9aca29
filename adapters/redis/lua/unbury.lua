#!lua flags=allow-oom
-- Redrives dead jobs with fresh budgets, each once (DLQ-2), or discards them (DLQ-3).
-- KEYS  meta body state ready dead letter history wake
-- ARGV  'redrive' or 'discard', the last death to include, the most to take, then ids ('*' alone for all)
-- Return {how many, the number of the last death}
-- Error  NOQUEUE
-- Cost  O(log n) a job

local meta, body, state, ready, dead, letter, history, wake = unpack(KEYS)
local about = redis.call('HMGET', meta, 'kind', 'deaths')
local kind = about[1]
if not kind then return redis.error_reply('NOQUEUE') end
local deaths = about[2] or '0'
local upto = ARGV[2] == '' and deaths or ARGV[2]

local ids = {}
if ARGV[4] == '*' then
  ids = redis.call('ZRANGE', dead, '-inf', upto, 'BYSCORE', 'LIMIT', 0, ARGV[3])
else
  local wanted = {}
  for i = 4, #ARGV do wanted[#wanted + 1] = ARGV[i] end
  for i, score in ipairs(redis.call('ZMSCORE', dead, unpack(wanted))) do
    if score then ids[#ids + 1] = wanted[i] end
  end
end
if #ids == 0 then return { 0, upto } end

redis.call('ZREM', dead, unpack(ids))
redis.call('HDEL', letter, unpack(ids))
redis.call('HDEL', history, unpack(ids))
if ARGV[1] == 'discard' then
  redis.call('HDEL', state, unpack(ids))
  redis.call('HDEL', body, unpack(ids))
  return { #ids, upto }
end
local states, records = {}, {}
for i, record in ipairs(redis.call('HMGET', state, unpack(ids))) do
  local job = unpack_state(record)
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
return { #ids, upto }
