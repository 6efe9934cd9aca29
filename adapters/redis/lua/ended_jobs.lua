#!lua flags=allow-oom
-- Says which jobs have ended since a wake-up, and announces that somebody waits for the next (RES-1).
-- KEYS  meta rwake
-- ARGV  id of the wake-up that was seen last ('' to begin), until when the asker has announced itself (ms),
--       how long it will wait in ms
-- Return {id of the newest wake-up; ids with commas, or nil if it isn't known which; until when it is announced now}
-- Error  NOQUEUE
-- Cost  O(wake-ups since then), of which about a thousand are kept

local waited_until = redis.call('HMGET', meta, 'kind', 'rwait')
if not waited_until[1] then return redis.error_reply('NOQUEUE') end
local now, last, stream = now_ms(), ARGV[1], rwake
-- Wake-ups are sent while somebody is announced: of one who comes too late, some may be missing.
local is_known = tonumber(ARGV[2]) > now
--- @include ended_since
local until_ms = now + tonumber(ARGV[3])
if until_ms > (tonumber(waited_until[2]) or 0) then redis.call('HSET', meta, 'rwait', until_ms) end
return { newest, ids, string.format('%.0f', until_ms) }
