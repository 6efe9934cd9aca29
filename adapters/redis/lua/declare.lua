#!lua flags=allow-oom
-- Creates a queue, or finds it as it is (ADM-1); also when memory is short, for a worker that comes to drain it.
-- KEYS  meta state run wake
-- ARGV  kind, layout version
-- Return the queue's kind and layout version as they are, and the time, µs
-- Cost  O(1)

local kind, layout = ARGV[1], ARGV[2]
--- @include create_queue
local about = redis.call('HMGET', meta, 'kind', 'layout')
return { about[1], about[2], string.format('%.0f', now_us()) }
