#!lua flags=allow-oom
-- Deletes a record, if it has the expected version (CRD-1, CRD-2).
-- KEYS  last records record_keys record_ends
-- ARGV  request, keep_ms, key, expected version ('' for any)
-- Return 1 if there was such a record, else 0
-- Error  STALE
-- Cost  O(log n)

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return tonumber(before) end

local key, expected = ARGV[3], ARGV[4]
local version, deleted = version_at(redis.call('HGET', records, key), now_us()), 0
if version > 0 and (expected == '' or version == tonumber(expected)) then
  redis.call('HDEL', records, key)
  redis.call('ZREM', record_keys, key)
  redis.call('ZREM', record_ends, key)
  deleted = 1
end
keep_answer(last, ARGV[1], deleted, ARGV[2])
return deleted
