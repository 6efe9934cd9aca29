-- Part of publish.lua and publish_guarded.lua: puts messages into a queue, each once (PUB-1, PUB-4, PUB-5).
-- Reads  kind, body state history dead dead_expiry letter ended, ARGV from the 3rd on: ids, priority:delay_ms of each, bodies
-- Sets   answers (a list of 'a', accepted, and 'd', duplicate)
-- Cost   O(1) a message; O(log n) where it is delayed, or on a sorted queue

local answers = {}
do
  local FIRST_BODY = 5
  local ids, count = {}, 0
  for id in string.gmatch(ARGV[3], '[^,]+') do
    count = count + 1
    ids[count] = id
  end
  local priorities, delays, planned = {}, {}, 0
  if ARGV[4] ~= '' then
    for priority, delay_ms in string.gmatch(ARGV[4], '(%d+):(%d+)') do
      planned = planned + 1
      priorities[planned], delays[planned] = tonumber(priority), tonumber(delay_ms)
    end
  end
  local taken, known = redis.call('HMGET', body, unpack(ids)), {}
  for i = 1, count do
    if taken[i] then known[#known + 1] = ids[i] end
  end
  local freed = #known == 0 and known or remove_expired({ dead = dead, dead_expiry = dead_expiry, body = body,
    state = state, letter = letter, history = history, ended = ended }, known, now_ms())
  local seen, bodies, stored = {}, {}, 0
  local now_ready, now_states, readied = {}, {}, 0
  local scores, records = {}, {}
  local now = nil
  for i = 1, count do
    local id = ids[i]
    if taken[i] and not freed[id] or seen[id] then
      answers[i] = 'd'
    else
      local priority, delay_ms = priorities[i] or 0, delays[i] or 0
      answers[i] = 'a'
      seen[id] = true
      bodies[stored + 1] = id
      bodies[stored + 2] = ARGV[FIRST_BODY + i - 1]
      stored = stored + 2
      if delay_ms > 0 then
        now = now or now_ms()
        scores[#scores + 1] = now + delay_ms
        scores[#scores + 1] = id
        if priority > 0 then
          records[#records + 1] = id
          records[#records + 1] = pack_state(fresh_state(priority))
        end
      else
        readied = readied + 1
        now_ready[readied] = id
        now_states[readied] = kind ~= 'fifo' and fresh_state(priority) or false
      end
    end
  end

  -- A key of another type than it should be fails here, before anything is written.
  local first = #scores > 0 and first_score(delay)
  if stored > 0 and redis.call('EXISTS', result) == 1 then -- of an earlier job of the same id
    redis.call('HDEL', result, unpack(ids))
    redis.call('ZREM', expiry, unpack(ids))
  end
  local must_wake = false
  if readied > 0 then must_wake = make_ready(kind, meta, ready, now_ready, now_states) == readied end
  if #scores > 0 then
    redis.call('ZADD', delay, unpack(scores))
    must_wake = must_wake or not first or first_score(delay) < first
  end
  if #records > 0 then redis.call('HSET', state, unpack(records)) end
  if stored > 0 then redis.call('HSET', body, unpack(bodies)) end
  if must_wake then wake_up(wake) end
end
