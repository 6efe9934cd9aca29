#!lua flags=no-writes,allow-oom
-- Says how jobs of another broker ended, of those that have (RES-1).
-- KEYS  kept expiry wake
-- ARGV  the most bytes to answer, ids
-- Return for each id, up to as many as fit: record, or nil where none is kept
-- Cost  O(ids)

local most, now, size = tonumber(ARGV[1]), now_ms(), 0
local answers = {}
for i = 2, #ARGV do
  local ends = redis.call('ZMSCORE', expiry, ARGV[i])[1]
  local record = ends and tonumber(ends) > now and redis.call('HGET', kept, ARGV[i]) or false
  answers[i - 1] = record
  size = size + (record and #record or 0)
  if size > most then break end
end
return answers
