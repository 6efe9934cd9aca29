#!lua flags=no-writes,allow-oom
-- Reads records of the coordination store, of those that are there (CRD-1, CRD-3).
-- KEYS  records
-- ARGV  the most bytes to answer, keys
-- Return for each key, up to as many as fit: the packed record, or nil
-- Cost  O(keys)

local most, now, size = tonumber(ARGV[1]), now_us(), 0
local found = {}
for i = 2, #ARGV do
  local record = redis.call('HGET', records, ARGV[i])
  found[i - 1] = version_at(record, now) > 0 and record or false
  size = size + (record and #record or 0)
  if size > most then break end
end
return found
