#!lua flags=allow-oom
-- Drops jobs that wait, ready or delayed, up to a number (ADM-2); called until none is left.
-- KEYS  meta body state history ready run delay ended asked last
-- ARGV  request, keep_ms, the most to drop
-- Return how many were dropped
-- Error  NOQUEUE, STALE
-- Cost  O(log n) a job, and a look through the last 10,000 that ended

local about = redis.call('HMGET', meta, 'kind', 'stand')
local kind = about[1]
if not kind then return redis.error_reply('NOQUEUE') end
local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return tonumber(before) end
local most = tonumber(ARGV[3])

local function forget(ids)
  redis.call('HDEL', body, unpack(ids))
  redis.call('HDEL', state, unpack(ids))
  redis.call('HDEL', history, unpack(ids))
  forget_ends(ended, ids)
  keep_answer(last, ARGV[1], #ids, ARGV[2])
  return #ids
end

local ids = {}
if kind ~= 'fifo' then
  local popped = redis.call('ZPOPMIN', ready, most)
  for i = 1, #popped, 2 do ids[#ids + 1] = popped[i] end
else
  ids = redis.call('LPOP', ready, most) or {}
end
if #ids > 0 then return forget(ids) end
ids = redis.call('ZRANGE', delay, 0, most - 1)
if #ids > 0 then
  redis.call('ZREM', delay, unpack(ids))
  return forget(ids)
end
-- A lease that has run out counts as ready, so it is purged as such.
ids = redis.call('ZRANGE', run, '-inf', over_until(about[2], now_ms()), 'BYSCORE', 'LIMIT', 0, most)
if #ids > 0 then
  redis.call('ZREM', run, unpack(ids))
  if redis.call('EXISTS', asked) == 1 then forget_asked(meta, asked, ids) end
  return forget(ids)
end
return 0
