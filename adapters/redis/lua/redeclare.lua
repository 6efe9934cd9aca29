#!lua flags=allow-oom
-- Creates queues that aren't there, and weren't deleted since a client declared them: the server has older data, or none.
-- KEYS  deleted
--         and for each queue: meta state run wake
-- ARGV  of each queue: name, kind, layout version, when it was declared (µs)
-- Cost  O(log n) a queue

for i = 1, #ARGV, 4 do
  local name, kind, layout, declared_us = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  local deleted_us = redis.call('ZMSCORE', deleted, name)[1]
  if not deleted_us or tonumber(deleted_us) < declared_us then
    local meta, state, run, wake = KEYS[i + 1], KEYS[i + 2], KEYS[i + 3], KEYS[i + 4]
    --- @include create_queue
  end
end
