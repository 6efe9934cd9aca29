#!lua
-- Creates a queue, or finds it as it is (ADM-1).
-- KEYS  meta wake
-- ARGV  kind, layout version
-- Return the queue's kind and layout version as they are
-- Cost  O(1)

local meta, wake = unpack(KEYS)
if redis.call('HSETNX', meta, 'kind', ARGV[1]) == 1 then
  redis.call('HSET', meta, 'layout', ARGV[2])
  redis.call('PERSIST', wake) -- left to expire when a queue of this name was deleted
end
return redis.call('HMGET', meta, 'kind', 'layout')
