#!lua flags=allow-oom
-- Says which jobs have ended since a wake-up, and announces that somebody waits for the next (RES-1).
-- KEYS  meta rwake
-- ARGV  id of the wake-up that was seen last ('' to begin), since when somebody waited at that time, as this script said
--       ('' to begin), how long the asker will wait in ms
-- Return {id of the newest wake-up; ids with commas, or nil if it isn't known which; since when somebody waits}
-- Error  NOQUEUE
-- Cost  O(wake-ups since then), of which about a thousand are kept

local about = redis.call('HMGET', meta, 'kind', 'rwait', 'rsince')
if not about[1] then return redis.error_reply('NOQUEUE') end
local now, last, stream = now_ms(), ARGV[1], rwake
local waited_until, since = tonumber(about[2]) or 0, about[3]
-- Wake-ups are sent while somebody waits. Some may be missing if nobody did meanwhile, by what the server knows: the
-- asker may have announced itself in data that is lost.
local is_known = since == ARGV[2] and waited_until > now
--- @include ended_since
return { newest, ids, announce_wait(meta, waited_until, since, now, tonumber(ARGV[3])) }
