#!lua flags=allow-oom
-- Removes a queue and every trace of it (ADM-3), and wakes those who wait for its jobs or results.
-- KEYS  meta wake rwake, then all others of the queue
-- Error  NOQUEUE
-- Cost  O(1) here; the memory is freed in the background

local meta, wake, rwake = unpack(KEYS)
if redis.call('EXISTS', meta) == 0 then return redis.error_reply('NOQUEUE') end
redis.call('UNLINK', unpack(KEYS))
for _, key in ipairs({ wake, rwake }) do
  redis.call('XADD', key, '*', 'w', 1)
  redis.call('PEXPIRE', key, 10000)
end
return 1
