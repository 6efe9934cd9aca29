#!lua flags=no-writes,allow-oom
-- Counts the jobs by state (CNT-1): what is due counts as ready, and so does what was leased too long.
-- KEYS  meta ready run delay dead dead_expiry
-- Return {ready, delayed, in flight, dead}
-- Error  NOQUEUE
-- Cost  O(log n)

local about = redis.call('HMGET', meta, 'kind', 'stand')
local kind = about[1]
if not kind then return redis.error_reply('NOQUEUE') end
local now = now_ms()
local due = redis.call('ZCOUNT', delay, '-inf', now)
local over = over_until(about[2], now)
local expired = redis.call('ZCOUNT', run, '-inf', over)
return {
  ready_count(kind, ready) + due + expired,
  redis.call('ZCARD', delay) - due,
  redis.call('ZCOUNT', run, '(' .. over, '(+inf'),
  redis.call('ZCARD', dead) - redis.call('ZCOUNT', dead_expiry, '-inf', now),
}
