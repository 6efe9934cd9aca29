#!lua flags=allow-oom
-- Reads the mark of a namespace, or sets it where there is none: in a server that is new, or has lost its memory.
-- KEYS  mark
-- ARGV  a mark that no other has
-- Return the mark
-- Cost  O(1)

local kept = redis.call('GET', mark)
if kept then return kept end
redis.call('SET', mark, ARGV[1])
return ARGV[1]
