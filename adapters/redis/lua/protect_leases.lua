#!lua flags=allow-oom
-- Keeps leases of a queue from ending just after an outage, when no worker could extend them (LSE-3, RTY-3).
-- KEYS  meta
-- ARGV  the server's run id, how long to let them stand in ms, 1 where the caller met an outage
-- Return 1, or 0 where there was no outage since the last call, or is no queue
-- Cost  O(1)

local about = redis.call('HMGET', meta, 'kind', 'server', 'stand')
if not about[1] then return 0 end
local restarted = about[2] and about[2] ~= ARGV[1]
if about[2] ~= ARGV[1] then redis.call('HSET', meta, 'server', ARGV[1]) end
if not restarted and ARGV[3] == '0' then return 0 end
-- A consumer with short leases takes nothing from those with longer ones, which may not be back yet.
redis.call('HSET', meta, 'stand', math.max(now_ms() + ARGV[2], tonumber(about[3]) or 0))
return 1
