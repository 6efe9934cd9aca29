-- Part of declare.lua and redeclare.lua: creates a queue, or leaves it as it is (ADM-1).
-- Reads  kind layout, meta state run wake
-- Sets   nothing
-- Cost   O(1)

if redis.call('HSETNX', meta, 'kind', kind) == 1 then
  redis.call('HSET', meta, 'layout', layout)
  -- Redis keeps small hashes and sorted sets as plain lists, which it searches from end to end: with some hundred
  -- jobs in flight that is slow. One entry that is too long for that, and no job's, keeps them from it.
  local ballast = string.rep('~', 129)
  redis.call('HSET', state, ballast, '')
  redis.call('ZADD', run, '+inf', ballast)
  redis.call('PERSIST', wake) -- left to expire when a queue of this name was deleted
end
