#!lua flags=allow-oom
-- Takes or extends places, each for a holder who has it or whose turn it is; the others wait in line (CRD-5).
-- KEYS  last
--       and for each place its two keys: who waits in line, by arrival; when each who waits or has a place ends, µs
-- ARGV  request, keep_ms, for how long in µs, then limit, holder of each place
-- Return a string: 1 (the holder has the place) or 0 (it waits) for each place
-- Error  STALE
-- Cost  O(log n) a place, and for each who ended

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

local now, ttl_us, answers = now_us(), tonumber(ARGV[3]), {}
local ttl_ms = math.ceil(ttl_us / 1000) + 1
for i = 4, #ARGV, 2 do
  local line, ends, limit, holder = KEYS[i - 2], KEYS[i - 1], tonumber(ARGV[i]), ARGV[i + 1]
  --- @include drop_expired_places
  if not redis.call('ZMSCORE', ends, holder)[1] then
    local newest = tonumber(redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2] or 0)
    redis.call('ZADD', line, math.max(now, newest + 1), holder)
  end
  redis.call('ZADD', ends, now + ttl_us, holder)
  local waits = redis.call('ZMSCORE', line, holder)[1]
  if waits then
    local free = limit - (redis.call('ZCARD', ends) - redis.call('ZCARD', line))
    if redis.call('ZCOUNT', line, '-inf', '(' .. waits) < free then
      redis.call('ZREM', line, holder)
      waits = false
    end
  end
  answers[#answers + 1] = waits and '0' or '1'
  -- Both last as long as the last of their entries, and no longer.
  for _, name in ipairs({ line, ends }) do
    if redis.call('PTTL', name) < ttl_ms then redis.call('PEXPIRE', name, ttl_ms) end
  end
end
local answer = table.concat(answers)
keep_answer(last, ARGV[1], answer, ARGV[2])
return answer
