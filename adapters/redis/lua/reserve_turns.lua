#!lua flags=allow-oom
-- Reserves turns of rates (CRD-6): the generic cell rate algorithm. All times are whole µs.
-- KEYS  last
--       and the key of each rate
-- ARGV  request, keep_ms, interval, how much earlier than its time a turn may come, how far away one may be, then the most
--       turns of each rate
-- Return a string, of each rate: how many turns were reserved, and in how long the first of them, or else the next, may
--         come; less than 0 where it could have come before
-- Error  STALE
-- Cost  O(1) a rate

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

local interval, early, far = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now, answers = now_us(), {}
for i = 2, #KEYS do
  local rate, most = KEYS[i], tonumber(ARGV[i + 4])
  local turn = math.max(now, tonumber(redis.call('GET', rate) or 0) or 0)
  local first = turn - early - now
  local reserved = math.max(0, math.min(most, math.floor((far - first) / interval) + 1))
  if reserved > 0 then
    turn = turn + reserved * interval
    redis.call('SET', rate, string.format('%.0f', turn), 'PX', math.ceil((turn - now) / 1000) + 1)
  end
  answers[#answers + 1] = string.format('%.0f %.0f', reserved, first)
end
local answer = table.concat(answers, ' ')
keep_answer(last, ARGV[1], answer, ARGV[2])
return answer
