#!lua flags=no-writes,allow-oom
-- Says which jobs of another broker have ended since a wake-up (RES-1).
-- KEYS  kept expiry wake
-- ARGV  id of the wake-up that was seen last ('' to begin); more is passed over
-- Return {id of the newest wake-up; ids with commas, or nil if it isn't known which; 0}
-- Cost  O(wake-ups since then), of which about a thousand are kept

local last, stream, is_known = ARGV[1], wake, true
--- @include ended_since
return { newest, ids, '' }
