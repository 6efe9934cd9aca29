-- Part of put_record.lua and publish_guarded.lua: writes a record, under a version that its key never had (CRD-1, CRD-3).
-- Reads  key value now, ttl_us (nil for ever), records record_keys record_ends versions
-- Sets   new_version
-- Cost   O(log n); removes at most 100 records whose time is over

local SWEPT = 100
local over = redis.call('ZRANGE', record_ends, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
if #over > 0 then
  redis.call('HDEL', records, unpack(over))
  redis.call('ZREM', record_keys, unpack(over))
  redis.call('ZREM', record_ends, unpack(over))
end
-- The time, or one more than the last, if the clock went back. So a server that lost the last one gives none again.
local number = math.max(now, (tonumber(redis.call('GET', versions) or 0) or 0) + 1)
new_version = string.format('%.0f', number)
redis.call('SET', versions, new_version)
redis.call('HSET', records, key, struct.pack('>dd', number, ttl_us and now + ttl_us or math.huge) .. value)
redis.call('ZADD', record_keys, 0, key)
if ttl_us then
  redis.call('ZADD', record_ends, now + ttl_us, key)
else
  redis.call('ZREM', record_ends, key)
end
