#!lua flags=no-writes,allow-oom
-- Says where a job is (RES-1).
-- KEYS  meta body run letter dead_expiry result ended
-- ARGV  id
-- Return 'waiting', 'running', 'done', 'cancelled', 'failed' or 'unknown'
-- Error  NOQUEUE
-- Cost   O(1); for a job that isn't known, a look through the last 10,000 that ended

local stand = redis.call('HMGET', meta, 'kind', 'stand')
if not stand[1] then return redis.error_reply('NOQUEUE') end
local id, now = ARGV[1], now_ms()

if redis.call('HEXISTS', letter, id) == 1 then return is_expired(dead_expiry, id, now) and 'unknown' or 'failed' end
if redis.call('HEXISTS', body, id) == 1 then
  local ends = redis.call('ZMSCORE', run, id)[1]
  return ends and tonumber(ends) > over_until(stand[2], now) and 'running' or 'waiting'
end
local record = redis.call('HGET', result, id)
local expires = record and #record >= 8 and struct.unpack('>d', record) or 0
if expires > now then return 'done' end
if -expires > now then return 'cancelled' end
if not record and redis.call('LPOS', ended, id) then return 'done' end
return 'unknown'
