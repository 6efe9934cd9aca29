#!lua flags=allow-oom
-- Reserves turns of something that has a rate (CRD-6): the generic cell rate algorithm. All times are whole µs.
-- KEYS  last rate
-- ARGV  request, keep_ms, most turns, interval, how much earlier than its time a turn may come, how far away one may be
-- Return a string: how many turns were reserved, and in how long the first of them, or else the next, may come; less than
--         0 where it could have come before
-- Error  STALE
-- Cost  O(1)

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

local most, interval, early, far = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_us()
local turn = math.max(now, tonumber(redis.call('GET', rate) or 0) or 0)
local first = turn - early - now
local reserved = math.max(0, math.min(most, math.floor((far - first) / interval) + 1))
if reserved > 0 then
  turn = turn + reserved * interval
  redis.call('SET', rate, string.format('%.0f', turn), 'PX', math.ceil((turn - now) / 1000) + 1)
end
local answer = string.format('%.0f %.0f', reserved, first)
keep_answer(last, ARGV[1], answer, ARGV[2])
return answer
