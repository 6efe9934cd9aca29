#!lua flags=no-writes,allow-oom
-- Shows the first ready job (CNT-2). It is at the head; if the queue is empty, it is the first that a sweep would add.
-- KEYS   meta body ready run delay
-- Return its body; nil if no job is ready
-- Error  NOQUEUE
-- Cost   O(log n)

local about = redis.call('HMGET', meta, 'kind', 'stand')
local kind = about[1]
if not kind then return redis.error_reply('NOQUEUE') end
local now = now_ms()
local id = redis.call(kind == 'fifo' and 'LRANGE' or 'ZRANGE', ready, 0, 0)[1]
  or redis.call('ZRANGE', delay, '-inf', now, 'BYSCORE', 'LIMIT', 0, 1)[1]
  or redis.call('ZRANGE', run, '-inf', over_until(about[2], now), 'BYSCORE', 'LIMIT', 0, 1)[1]
return id and redis.call('HGET', body, id)
