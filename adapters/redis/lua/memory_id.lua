#!lua flags=allow-oom
-- Reads the id of the server's memory, or sets it if there is none: the server is new, or has lost its memory.
-- KEYS  memory_id
-- ARGV  a random id
-- Return the id
-- Cost  O(1)

local kept = redis.call('GET', memory_id)
if kept then return kept end
redis.call('SET', memory_id, ARGV[1])
return ARGV[1]
