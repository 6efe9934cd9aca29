#!lua flags=allow-oom
-- Removes a queue and every trace of it (ADM-3), and wakes those who wait for its jobs or results.
-- KEYS  last meta wake rwake body state ready run delay dead letter history result expiry ended progress asked
-- ARGV  request, keep_ms
-- Error  NOQUEUE, STALE
-- Cost  O(1) here; the memory is freed in the background

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return 1 end -- first: the queue is gone by now
if redis.call('EXISTS', meta) == 0 then return redis.error_reply('NOQUEUE') end
redis.call('UNLINK', unpack(KEYS, 2))
for _, key in ipairs({ wake, rwake }) do
  redis.call('XADD', key, '*', 'w', 1)
  redis.call('PEXPIRE', key, 10000)
end
keep_answer(last, ARGV[1], '', ARGV[2])
return 1
