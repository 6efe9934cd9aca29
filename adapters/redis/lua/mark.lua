#!lua flags=allow-oom
-- Reads the mark of a namespace, or sets it where there is none: in a server that is new, or has lost its memory.
-- KEYS  mark
-- ARGV  a mark that no other has
-- Return the mark
-- Cost  O(1)

local mark = redis.call('GET', KEYS[1])
if not mark then
  mark = ARGV[1]
  redis.call('SET', KEYS[1], mark)
end
return mark
