#!lua flags=no-writes,allow-oom
-- Says how a job of another broker ended (RES-1).
-- KEYS  kept expiry wake
-- ARGV  id
-- Return {record, or nil where none is kept; newest wake id}
-- Cost  O(1)

local ends = redis.call('ZMSCORE', expiry, ARGV[1])[1]
local record = ends and tonumber(ends) > now_ms() and redis.call('HGET', kept, ARGV[1])
local newest = redis.call('XREVRANGE', wake, '+', '-', 'COUNT', 1)[1]
return { record or false, newest and newest[1] or '0-0' }
