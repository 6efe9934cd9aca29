#!lua flags=allow-oom
-- Gives places back, and leaves their lines (CRD-5).
-- KEYS  last
--       and for each place its two keys, as of take_places.lua
-- ARGV  request, keep_ms, the holder of each place
-- Error  STALE
-- Cost  O(log n) a place

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

for i = 3, #ARGV do
  redis.call('ZREM', KEYS[2 * i - 4], ARGV[i])
  redis.call('ZREM', KEYS[2 * i - 3], ARGV[i])
end
keep_answer(last, ARGV[1], '', ARGV[2])
