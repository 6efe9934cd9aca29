-- Part of take_places.lua: drops those whose time is over, from their places and from the line (CRD-5).
-- Reads  line ends watches now
-- Sets   nothing
-- Cost   O(log n) for each

local SOME = 1000
repeat
  local over = redis.call('ZRANGE', ends, '-inf', now, 'BYSCORE', 'LIMIT', 0, SOME)
  if #over > 0 then
    redis.call('ZREM', ends, unpack(over))
    redis.call('ZREM', line, unpack(over))
    redis.call('HDEL', watches, unpack(over))
  end
until #over < SOME
