#!lua flags=no-writes,allow-oom
-- Says what is damaged in a queue.
-- KEYS  meta body ready run delay dead dead_expiry state letter history result expiry ended wake rwake progress asked
-- ARGV  the type that each of the keys should have, in their order
-- Return {keys of another type, each followed by that type; how many bodies there are; how many jobs stand in ready,
--         run, delay and dead}; the two numbers only where no key is of another type
-- Error  NOQUEUE
-- Cost  O(1)

if redis.call('EXISTS', meta) == 0 then return redis.error_reply('NOQUEUE') end
local wrong = {}
for i, key in ipairs(KEYS) do
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= ARGV[i] then
    wrong[#wrong + 1] = key
    wrong[#wrong + 1] = found
  end
end
if #wrong > 0 then return { wrong, 0, 0 } end
local standing = redis.call('TYPE', ready).ok == 'zset' and redis.call('ZCARD', ready) or redis.call('LLEN', ready)
for _, key in ipairs({ run, delay, dead }) do standing = standing + redis.call('ZCOUNT', key, '-inf', '(+inf') end
return { wrong, redis.call('HLEN', body), standing }
