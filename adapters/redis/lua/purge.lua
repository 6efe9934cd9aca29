#!lua flags=allow-oom
-- Drops jobs that wait, ready or delayed, up to a number (ADM-2); called until none is left. Jobs that were asked to be
-- cancelled and whose leases are over end (CAN-3).
-- KEYS  meta body state history ready run delay result expiry ended asked rwake last
-- ARGV  request, keep_ms, the most to drop
-- Return how many were dropped
-- Error  NOQUEUE, STALE
-- Cost  O(log n) a job, and a look through the last 10,000 that ended

local about = redis.call('HMGET', meta, 'kind', 'stand', 'rwait')
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
-- A job whose lease is over counts as ready, and is purged as such, unless it has ended then.
local now, waited_until = now_ms(), tonumber(about[3])
while true do
  local expired = redis.call('ZRANGE', run, '-inf', over_until(about[2], now), 'BYSCORE', 'LIMIT', 0, most)
  if #expired == 0 then return 0 end
  redis.call('ZREM', run, unpack(expired))
  if redis.call('EXISTS', asked) == 1 then
    local found = redis.call('HMGET', state, unpack(expired))
    --- @include sweep_cancelled
  end
  if #expired > 0 then return forget(expired) end
end
