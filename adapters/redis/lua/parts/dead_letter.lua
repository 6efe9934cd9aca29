-- Part of settle.lua: makes a job a dead letter (DLQ-1), or drops it where it has no body.
-- Reads  id, job, op (d and the reason), text (the error), number (how long to keep it, ms; 0 for ever), now dead_until,
--        meta body state dead dead_expiry letter history
-- Sets   dead_until
-- Cost   O(log n)

local name = id
if id == '' or #id > 128 or string.find(id, '[^%w._-]') then -- no command could name it
  name = 'malformed-' .. redis.sha1hex(id)
  for _, key in ipairs({ body, history }) do
    local kept = redis.call('HGET', key, id)
    redis.call('HDEL', key, id)
    if kept then redis.call('HSET', key, name, kept) end
  end
  redis.call('HDEL', state, id)
end
if redis.call('HEXISTS', body, name) == 1 then
  local latest = tonumber(redis.call('ZRANGE', dead, -1, -1, 'WITHSCORES')[2]) or 0
  local number_of_death = take_numbers(meta, 'deaths', 1, latest < LEVEL and latest or 0) + 1
  redis.call('ZADD', dead, number_of_death, name)
  redis.call('HSET', letter, name, cjson.encode({ string.sub(op, 2), text, now }))
  redis.call('HSET', state, name, pack_state(job))
  if number > 0 then
    redis.call('ZADD', dead_expiry, now + number, name)
    if not dead_until or now + number < dead_until then
      dead_until = now + number
      redis.call('HSET', meta, 'dead_until', dead_until)
    end
  end
else -- there is nothing to bury
  redis.call('HDEL', state, name)
  redis.call('HDEL', history, name)
end
