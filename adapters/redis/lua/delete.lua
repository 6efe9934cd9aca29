#!lua flags=allow-oom
-- Removes a queue and every trace of it (ADM-3), and wakes those who wait for its jobs or results. When it was deleted is
-- remembered, or the clients that declared it would take the server for one that has older data (redeclare.lua).
-- KEYS  last deleted meta wake rwake body state ready run delay dead dead_expiry letter history result expiry ended progress asked
-- ARGV  request, keep_ms, the queue's name
-- Error  NOQUEUE, STALE
-- Cost  O(log n) here; the memory is freed in the background

local KEPT_DELETIONS = 1000
local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return 1 end -- first: the queue is gone by now
if redis.call('EXISTS', meta) == 0 then return redis.error_reply('NOQUEUE') end
redis.call('ZADD', deleted, now_us(), ARGV[3]) -- first: if this fails, nothing is removed
redis.call('UNLINK', unpack(KEYS, 3))
for _, key in ipairs({ wake, rwake }) do
  redis.call('XADD', key, '*', 'w', 1)
  redis.call('PEXPIRE', key, 10000)
end
local surplus = redis.call('ZCARD', deleted) - KEPT_DELETIONS
if surplus > 0 then redis.call('ZREM', deleted, unpack(redis.call('ZRANGE', deleted, 0, surplus - 1))) end
keep_answer(last, ARGV[1], '', ARGV[2])
return 1
