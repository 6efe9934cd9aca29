#!lua flags=no-writes,allow-oom
-- Reads a page of the records whose keys begin alike, in the order of their keys (CRD-1, CRD-3).
-- KEYS  records record_keys
-- ARGV  where the page begins and where the last of all ends (as ZRANGE BYLEX takes them), most records, most bytes (the
--         page ends with the record that exceeds them)
-- Return {the key behind which the next page begins, empty where no more follow; keys and packed records in turn}
-- Cost  O(log n + records)

local most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local keys = redis.call('ZRANGE', record_keys, ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, most)
local now, size, page = now_us(), 0, { '' }
for i, key in ipairs(keys) do
  local record = redis.call('HGET', records, key)
  if version_at(record, now) > 0 then
    page[#page + 1] = key
    page[#page + 1] = record
    size = size + #record
  end
  if i == most or size > most_bytes then
    page[1] = key
    break
  end
end
return page
