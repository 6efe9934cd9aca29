#!lua flags=allow-oom
-- Says how a job ended, and announces a waiter where it hasn't (RES-1).
-- KEYS  meta body result letter dead_expiry ended rwake
-- ARGV  id, how long the asker will wait in ms (0 for not at all)
-- Return {'done', body or ''} · {'cancelled'} · {'failed', letter (JSON)} · {'open', newest wake id}
-- Error  NOQUEUE
-- Cost  O(1); for a job that isn't known, a look through the last 10,000 that ended

local about = redis.call('HMGET', meta, 'kind', 'rwait', 'rsince')
if not about[1] then return redis.error_reply('NOQUEUE') end
local id, wait_ms = ARGV[1], tonumber(ARGV[2])
local now = now_ms()

local failed = redis.call('HGET', letter, id)
if failed and not is_expired(dead_expiry, id, now) then return { 'failed', failed } end
if redis.call('HEXISTS', body, id) == 0 then
  local record = redis.call('HGET', result, id)
  local expires = record and #record >= 8 and struct.unpack('>d', record) or 0
  if expires > now then return { 'done', string.sub(record, 9) } end
  if -expires > now then return { 'cancelled' } end
  if not record and redis.call('LPOS', ended, id) then return { 'done', '' } end
end
if wait_ms > 0 then announce_wait(meta, tonumber(about[2]) or 0, about[3], now, wait_ms) end
local newest = redis.call('XREVRANGE', rwake, '+', '-', 'COUNT', 1)[1]
return { 'open', newest and newest[1] or '0-0' }
