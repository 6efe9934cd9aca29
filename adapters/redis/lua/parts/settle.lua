-- Settles what the consumer has done (SET, RES). Each settlement is checked against its lease's token before anything
-- is written for it: a job that another consumer holds by now is left alone (LSE-4).
-- Reads  kind now stand waited_until has_asked is_behind, ARGV from the 6th on; includes keep_result, retry, delay_job
--        and dead_letter
-- Sets   outcomes (a list of 1, settled, 0, lost, and 2, cancelled, in the order of ARGV), must_wake (whether jobs are ready for
--        others), must_plan (whether something is due sooner than others know)
-- Cost   O(1) a plain ack, and O(log n) for its lease; removes at most 500 results whose time is over

local outcomes, must_wake, must_plan = {}, false, false
do
  local KEPT_ENDS, SWEPT = {{remembered_ends}}, 500
  local ids, tokens, firsts, acks, others = {}, {}, {}, 0, 7
  for _ = 1, tonumber(ARGV[6]) do
    local token = ARGV[others]
    local first = FIRST_DELIVERY .. token
    for id in string.gmatch(ARGV[others + 1], '[^,]+') do
      acks = acks + 1
      ids[acks] = id
      tokens[acks], firsts[acks] = token, first
    end
    others = others + 2
  end
  local settled = acks + (#ARGV - others + 1) / 5
  if settled > 0 then
    for i = acks + 1, settled do ids[i] = ARGV[others + 5 * (i - acks - 1) + 1] end
    local records = redis.call('HMGET', state, unpack(ids))
    if is_behind then -- a lease that is over is lost, though nobody has taken its job back yet (LSE-2)
      local moment = over_until(stand, now)
      for i, ends in ipairs(redis.call('ZMSCORE', run, unpack(ids))) do
        if ends and tonumber(ends) <= moment then records[i] = false end
      end
    end
    local over, done, cancelled, returned, returned_states = {}, {}, {}, {}, {}
    local requests = has_asked and read_asked(asked, ids, records) or {}

    -- Plain acks: most records are those of a first delivery, and needn't be taken apart.
    local sub, acked = string.sub, 0
    for i = 1, acks do
      local record = records[i]
      if record == firsts[i] or record and sub(record, RECORD + 1) == tokens[i] then
        outcomes[i] = '1'
        acked = acked + 1
        done[acked] = ids[i]
        over[acked] = ids[i]
      else
        outcomes[i] = '0'
      end
    end
    if acked > 0 then
      redis.call('LPUSH', ended, unpack(done))
      redis.call('LTRIM', ended, 0, KEPT_ENDS - 1)
    end

    for i = acks + 1, settled do
      local id, record = ids[i], records[i]
      local at = others + 5 * (i - acks - 1)
      local op, token, text, number = ARGV[at], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
      if not record or sub(record, RECORD + 1) ~= token then
        outcomes[i] = '0'
      else
        outcomes[i] = '1'
        over[#over + 1] = id
        local what = sub(op, 1, 1)
        if requests[id] and what ~= 'a' and what ~= 'c' then
          outcomes[i], what, number = '2', 'c', requests[id]
        end
        if what == 'a' then
          --- @include keep_result
        elseif what == 'c' then
          done[#done + 1] = id
          cancelled[#cancelled + 1] = id
          keep_cancelled(result, expiry, id, now, number)
        else
          local job = unpack_state(record) or fresh_state(0)
          job.token = ''
          if what == 'r' then
            --- @include retry
          elseif what == 'd' then
            --- @include dead_letter
          elseif number > 0 then -- a release with a delay
            --- @include delay_job
          else
            returned[#returned + 1] = id
            returned_states[#returned_states + 1] = job
          end
          if what ~= 'd' then redis.call('HSET', state, id, pack_state(job)) end
        end
      end
    end

    if #over > 0 then redis.call('ZREM', run, unpack(over)) end
    if has_asked and #over > 0 then forget_asked(meta, asked, over) end
    if #cancelled > 0 then forget_ends(ended, cancelled) end
    if #done > 0 then
      redis.call('HDEL', state, unpack(done))
      redis.call('HDEL', body, unpack(done))
      if redis.call('EXISTS', history) == 1 then redis.call('HDEL', history, unpack(done)) end
    end
    if #returned > 0 then
      put_back(kind, ready, returned, returned_states)
      must_wake = true
    end
    local outdated = redis.call('ZRANGE', expiry, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
    if #outdated > 0 then
      redis.call('ZREM', expiry, unpack(outdated))
      redis.call('HDEL', result, unpack(outdated))
    end
    if #over > 0 and waited_until and waited_until > now then
      wake_with_ids(rwake, over)
    end
  end
end
