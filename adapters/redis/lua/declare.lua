#!lua flags=allow-oom
-- Creates a queue, or finds it as it is (ADM-1); also when memory is short, for a worker that comes to drain it.
-- KEYS  meta state run wake
-- ARGV  kind, layout version
-- Return the queue's kind and layout version as they are
-- Cost  O(1)

if redis.call('HSETNX', meta, 'kind', ARGV[1]) == 1 then
  redis.call('HSET', meta, 'layout', ARGV[2])
  -- Redis keeps small hashes and sorted sets as plain lists, which it searches from end to end: with some hundred
  -- jobs in flight that is slow. One entry that is too long for that, and no job's, keeps them from it.
  local ballast = string.rep('~', 129)
  redis.call('HSET', state, ballast, '')
  redis.call('ZADD', run, '+inf', ballast)
  redis.call('PERSIST', wake) -- left to expire when a queue of this name was deleted
end
return redis.call('HMGET', meta, 'kind', 'layout')
