#!lua
-- Keeps how jobs of another broker ended, and wakes whoever waits for it (RES-1). May not run when memory is short.
-- KEYS  kept expiry wake
-- ARGV  id, ttl_ms, record (how it ended and the output or the error) of each job
-- Error  OOM
-- Cost  O(log n) a job; removes at most 500 others whose time is over

local SWEPT = 500
local now, longest, ids = now_ms(), 0, {}

local outdated = redis.call('ZRANGE', expiry, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
if #outdated > 0 then
  redis.call('ZREM', expiry, unpack(outdated))
  redis.call('HDEL', kept, unpack(outdated))
end
for i = 1, #ARGV, 3 do
  local id, ttl_ms, record = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  redis.call('HSET', kept, id, record)
  redis.call('ZADD', expiry, now + ttl_ms, id)
  longest = math.max(longest, ttl_ms)
  ids[#ids + 1] = id
end
-- The keys last as long as the last of their entries, and no longer: nothing is left of a queue that nobody uses.
for _, key in ipairs({ kept, expiry }) do
  if redis.call('PTTL', key) < longest then redis.call('PEXPIRE', key, longest) end
end
wake_with_ids(wake, ids)
