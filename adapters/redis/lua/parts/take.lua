-- Leases the next jobs to the consumer, in the order of the queue (RCV-1, ORD).
-- Reads  kind now, take consumer request lease_ms, state ready run
-- Sets   ids, infos (what settle_and_take.lua returns of each), all_first (whether all are first deliveries)
-- Cost   O(1) a job on a fifo, O(log n) else, and O(log n) for its lease

local ids, infos, all_first = {}, {}, true
local scores = {}
if take > 0 and kind ~= 'fifo' then
  local popped = redis.call('ZPOPMIN', ready, take)
  for i = 1, #popped, 2 do
    ids[#ids + 1] = popped[i]
    scores[#ids] = tonumber(popped[i + 1])
  end
elseif take > 0 then
  ids = redis.call('LPOP', ready, take) or ids
end
if #ids > 0 then
  local records, leases, leased = {}, {}, 0
  local token = consumer .. ':' .. request
  local first, lease_ends = FIRST_DELIVERY .. token, string.format('%.0f', now + lease_ms)
  for i, record in ipairs(redis.call('HMGET', state, unpack(ids))) do
    if record or scores[i] then
      all_first = false
      local job = fresh_state(0)
      if record then job = unpack_state(record) end
      if job and scores[i] then
        job.priority = 9 - math.floor(scores[i] / LEVEL)
        job.place = scores[i] % LEVEL
      end
      if not job or not is_sound(job) then
        record, infos[i] = first, '!'
      elseif job.token ~= '' and redis.call('ZMSCORE', run, ids[i])[1] then
        record, infos[i] = nil, '='
      else
        job.number = job.number + 1
        job.token = token
        record = pack_state(job)
        infos[i] = job.attempt .. ':' .. job.number .. ':' .. job.crashes
      end
    else
      record = first
      infos[i] = ''
    end
    if record then
      leased = leased + 1
      records[2 * leased - 1] = ids[i]
      records[2 * leased] = record
      leases[2 * leased - 1] = lease_ends
      leases[2 * leased] = ids[i]
    end
  end
  if leased > 0 then
    redis.call('HSET', state, unpack(records))
    if redis.call('ZADD', run, unpack(leases)) < leased then -- one stood in the queue twice
      local seen = {}
      for i, id in ipairs(ids) do
        if seen[id] then infos[i], all_first = '=', false end
        seen[id] = true
      end
    end
  end
end
