-- Reads what a request of a consumer says, and what is known of its queue.
-- Reads  ARGV from the first to the 5th, meta
-- Sets   request consumer lease_ms keep_ms take, kind waited_until stand has_asked dead_until now
-- Cost   O(1)

local request, consumer, lease_ms, keep_ms, take = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local about = redis.call('HMGET', meta, 'kind', 'rwait', 'stand', 'asked', 'dead_until')
local kind, waited_until, stand = about[1], tonumber(about[2]), tonumber(about[3])
local dead_until = tonumber(about[5])
local has_asked = about[4] and about[4] ~= '0'
if not kind then return redis.error_reply('NOQUEUE') end
local now = now_ms()
