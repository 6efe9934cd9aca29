#!lua
-- Puts messages into a queue, each once (PUB-1, PUB-4, PUB-5). May not run when memory is short.
-- KEYS  meta body state ready delay wake result expiry last
-- ARGV  request, keep_ms, then id, body, priority, delay_ms of each message
-- Return a string: 'a' accepted or 'd' duplicate, for each message
-- Error  NOQUEUE, STALE
-- Cost  O(1) a message; O(log n) where it is delayed, or on a priority queue

local meta, body, state, ready, delay, wake, result, expiry, last = unpack(KEYS)
local kind = redis.call('HGET', meta, 'kind')
if not kind then return redis.error_reply('NOQUEUE') end

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

local ids = {}
for i = 3, #ARGV, 4 do ids[#ids + 1] = ARGV[i] end
local taken = redis.call('HMGET', body, unpack(ids))
local seen, answers, bodies = {}, {}, {}
local now_ready, now_states = {}, {}
local scores, records = {}, {}
local now = nil
for i, id in ipairs(ids) do
  if taken[i] or seen[id] then
    answers[i] = 'd'
  else
    local at = 3 + 4 * (i - 1)
    local priority, delay_ms = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
    answers[i] = 'a'
    seen[id] = true
    bodies[#bodies + 1] = id
    bodies[#bodies + 1] = ARGV[at + 1]
    if delay_ms > 0 then
      now = now or now_ms()
      scores[#scores + 1] = now + delay_ms
      scores[#scores + 1] = id
      if priority > 0 then
        records[#records + 1] = id
        records[#records + 1] = pack_state(fresh_state(priority))
      end
    else
      now_ready[#now_ready + 1] = id
      now_states[#now_states + 1] = kind == 'priority' and fresh_state(priority) or false
    end
  end
end

if #bodies > 0 then redis.call('HSET', body, unpack(bodies)) end
if #bodies > 0 and redis.call('EXISTS', result) == 1 then -- of an earlier job of the same id
  redis.call('HDEL', result, unpack(ids))
  redis.call('ZREM', expiry, unpack(ids))
end
if #records > 0 then redis.call('HSET', state, unpack(records)) end
local must_wake = false
if #now_ready > 0 then
  must_wake = ready_count(kind, ready) == 0
  make_ready(kind, meta, ready, now_ready, now_states)
end
if #scores > 0 then
  local first = first_score(delay)
  redis.call('ZADD', delay, unpack(scores))
  must_wake = must_wake or not first or first_score(delay) < first
end
if must_wake then wake_up(wake) end

local answer = table.concat(answers)
remember(last, ARGV[1], answer, ARGV[2])
return answer
