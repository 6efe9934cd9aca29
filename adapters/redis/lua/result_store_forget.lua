#!lua flags=allow-oom
-- Forgets how jobs of another broker ended, for an id that is used again, or a queue that is deleted (ADM-3).
-- KEYS  kept expiry wake
-- ARGV  ids, or none for all
-- Cost  O(log n) an id; for all O(1) here, as the memory is freed in the background

if #ARGV == 0 then
  redis.call('UNLINK', unpack(KEYS))
else
  redis.call('HDEL', kept, unpack(ARGV))
  redis.call('ZREM', expiry, unpack(ARGV))
end
