#!lua flags=no-writes,allow-oom
-- Lists dead letters, oldest first, without disturbing them (DLQ-1).
-- KEYS  meta body state dead letter history
-- ARGV  offset, limit
-- Return {ids, bodies, infos (attempt:number:crashes), letters (JSON: reason, error, died_ms), histories (JSON)}
-- Error  NOQUEUE
-- Cost  O(log n + limit)

local meta, body, state, dead, letter, history = unpack(KEYS)
if redis.call('EXISTS', meta) == 0 then return redis.error_reply('NOQUEUE') end
local offset = tonumber(ARGV[1])
local ids = redis.call('ZRANGE', dead, offset, offset + tonumber(ARGV[2]) - 1)
if #ids == 0 then return { {}, {}, {}, {}, {} } end
local infos = {}
for i, record in ipairs(redis.call('HMGET', state, unpack(ids))) do
  local job = unpack_state(record)
  infos[i] = job.attempt .. ':' .. job.number .. ':' .. job.crashes
end
return { ids, redis.call('HMGET', body, unpack(ids)), infos, redis.call('HMGET', letter, unpack(ids)),
         redis.call('HMGET', history, unpack(ids)) }
