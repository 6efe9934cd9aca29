#!lua flags=no-writes,allow-oom
-- Finds the answer of a request that published into a queue, unless the queue was deleted since: its jobs are gone then.
-- KEYS  last deleted
-- ARGV  the request's number, for how long an answer is kept (ms), the queue's name
-- Return the answer, or nil
-- Cost  O(1)

local answer = redis.call('GET', last)
if not answer or string.match(answer, '^%d+') ~= ARGV[1] then return false end
local answered_us = now_us() - (tonumber(ARGV[2]) - redis.call('PTTL', last)) * 1000
local deleted_us = redis.call('ZMSCORE', deleted, ARGV[3])[1]
if deleted_us and tonumber(deleted_us) >= answered_us then return false end
return string.sub(answer, #ARGV[1] + 2)
