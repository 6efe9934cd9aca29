#!lua flags=allow-oom
-- Keeps how far a delivery has come, by its token, unless its lease was lost (LSE-4), and forgets what others told once
-- they are more than those in flight.
-- KEYS  state run progress
-- ARGV  id, token, JSON [done, total], how long to keep it all (ms) where nobody tells any more
-- Cost  O(log n), and a look at all that is kept each time that it has grown by as much

local record = redis.call('HGET', state, ARGV[1])
if not record or string.sub(record, RECORD + 1) ~= ARGV[2] or not redis.call('ZMSCORE', run, ARGV[1])[1] then return end
redis.call('HSET', progress, ARGV[1], ARGV[3] .. '|' .. ARGV[2])
redis.call('PEXPIRE', progress, ARGV[4])
if redis.call('HLEN', progress) <= 2 * redis.call('ZCARD', run) + 100 then return end
local told = redis.call('HGETALL', progress)
for start = 1, #told, 2000 do
  local some, ended = {}, {}
  for i = start, math.min(start + 1999, #told), 2 do some[#some + 1] = told[i] end
  for i, lease in ipairs(redis.call('ZMSCORE', run, unpack(some))) do
    if not lease then ended[#ended + 1] = some[i] end
  end
  if #ended > 0 then redis.call('HDEL', progress, unpack(ended)) end
end
