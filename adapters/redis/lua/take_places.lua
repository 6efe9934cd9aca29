#!lua flags=allow-oom
-- Gives places back, and leaves their lines. Then takes or extends others, each for a holder who has it or whose turn it is;
-- the others wait in line (CRD-5). Tells the holders who are next in line for what was given back and is free (CRD-7).
-- KEYS  last lines
--       and for each place its three keys: who waits in line, by arrival; when each who waits or has a place ends, µs; the
--       watch of each who waits
-- ARGV  request, keep_ms, for how long places last in µs, and positions in line, how the names of streams of reports begin,
--       how many places are given back, then limit, holder, watch of each place: first of these
-- Return a string: 1 (the holder has the place) or 0 (it waits) for each place that was asked for
-- Error  STALE
-- Cost  O(log n) a place, and for each who ended

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

local now, has_us, waits_us, answers = now_us(), tonumber(ARGV[3]), tonumber(ARGV[4]), {}
local ttl_ms = math.ceil(math.max(has_us, waits_us) / 1000) + 1
local FIRST, left = 7, {}
local taken_from = FIRST + 3 * tonumber(ARGV[6])
for i = FIRST, taken_from - 1, 3 do
  local line, ends, watches = KEYS[i - 4], KEYS[i - 3], KEYS[i - 2]
  redis.call('ZREM', line, ARGV[i + 1])
  redis.call('ZREM', ends, ARGV[i + 1])
  redis.call('HDEL', watches, ARGV[i + 1])
  left[line] = i
end
for i = taken_from, #ARGV, 3 do
  local line, ends, watches, limit, holder = KEYS[i - 4], KEYS[i - 3], KEYS[i - 2], tonumber(ARGV[i]), ARGV[i + 1]
  --- @include drop_expired_places
  local until_us = has_us
  if not redis.call('ZMSCORE', ends, holder)[1] then
    local newest = tonumber(redis.call('ZRANGE', line, -1, -1, 'WITHSCORES')[2] or 0)
    redis.call('ZADD', line, math.max(now, newest + 1), holder)
    redis.call('ZADD', ends, now + waits_us, holder)
  end
  local waits = redis.call('ZMSCORE', line, holder)[1]
  if waits then
    local free = limit - (redis.call('ZCARD', ends) - redis.call('ZCARD', line))
    if redis.call('ZCOUNT', line, '-inf', '(' .. waits) < free then
      redis.call('ZREM', line, holder)
      redis.call('HDEL', watches, holder)
      waits = false
    else
      until_us = waits_us
      if ARGV[i + 2] ~= '' then redis.call('HSET', watches, holder, ARGV[i + 2]) end
    end
  end
  redis.call('ZADD', ends, now + until_us, holder)
  answers[#answers + 1] = waits and '0' or '1'
  -- All last as long as the last of their entries, and no longer.
  for _, name in ipairs({ line, ends, watches }) do
    if redis.call('PTTL', name) < ttl_ms then redis.call('PEXPIRE', name, ttl_ms) end
  end
  redis.call('ZADD', lines, 'GT', now + until_us, line)
end
if taken_from <= #ARGV then
  local over = redis.call('ZRANGE', lines, '-inf', now, 'BYSCORE', 'LIMIT', 0, 1000)
  if #over > 0 then redis.call('ZREM', lines, unpack(over)) end
  if redis.call('PTTL', lines) < ttl_ms then redis.call('PEXPIRE', lines, ttl_ms) end
end
for line, i in pairs(left) do
  local ends, watches, limit, own = KEYS[i - 3], KEYS[i - 2], tonumber(ARGV[i]), ARGV[i + 2]
  --- @include drop_expired_places
  local present = redis.call('ZCARD', ends)
  if present == 0 then redis.call('ZREM', lines, line) end
  local free = limit - (present - redis.call('ZCARD', line))
  local first = free > 0 and redis.call('ZRANGE', line, 0, free - 1) or {}
  local told = #first > 0 and redis.call('HMGET', watches, unpack(first)) or {}
  for _, watch in ipairs(told) do
    if watch and watch ~= own then
      local token, number = string.match(watch, '^(.*)-(.*)$')
      local stream = ARGV[5] .. token
      redis.call('XADD', stream, 'MAXLEN', '~', '1000', '*', number, line)
      redis.call('PEXPIRE', stream, 60000)
    end
  end
end
local answer = table.concat(answers)
keep_answer(last, ARGV[1], answer, ARGV[2])
return answer
