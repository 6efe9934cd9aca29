-- Makes ready what is due, and takes back what was leased too long: each such lease counts as a crash (LSE-1, RTY-3). A
-- job that is asked to be cancelled ends (CAN-3), and dead letters whose time is over are removed (DLQ-5).
-- Reads  kind now stand waited_until has_asked dead_until, meta body state history ready run delay dead dead_expiry letter
--        result expiry ended asked rwake
-- Sets   is_behind (whether leases may be over that are still to be taken back), dead_until
-- Cost   O(log n) a job; at most 500 that are due, 500 whose lease is over and 500 dead letters; for these a look through
--        the last 10,000 that ended

local is_behind
do
  local SWEPT = 500
  local due = redis.call('ZRANGE', delay, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
  if #due > 0 then
    redis.call('ZREM', delay, unpack(due))
    local states = {}
    if kind ~= 'fifo' then
      for i, record in ipairs(redis.call('HMGET', state, unpack(due))) do
        states[i] = record and unpack_state(record) or fresh_state(0)
      end
    end
    make_ready(kind, meta, ready, due, states)
  end
  local expired = redis.call('ZRANGE', run, '-inf', over_until(stand, now), 'BYSCORE', 'LIMIT', 0, SWEPT)
  is_behind = #expired == SWEPT
  if #expired > 0 then
    redis.call('ZREM', run, unpack(expired))
    local states, records, found = {}, {}, redis.call('HMGET', state, unpack(expired))
    if has_asked then
      --- @include sweep_cancelled
    end
    for i, record in ipairs(found) do
      local job = record and unpack_state(record)
      states[i] = job or fresh_state(0)
      if job then -- a damaged record is found at the next delivery
        job.crashes = job.crashes + 1
        job.token = ''
        records[#records + 1] = expired[i]
        records[#records + 1] = pack_state(job)
      end
    end
    if #records > 0 then redis.call('HSET', state, unpack(records)) end
    if #expired > 0 then put_back(kind, ready, expired, states) end
  end
  if dead_until and dead_until <= now then
    local over = redis.call('ZRANGE', dead_expiry, '-inf', now, 'BYSCORE', 'LIMIT', 0, SWEPT)
    if #over > 0 then
      remove_dead({ dead = dead, dead_expiry = dead_expiry, body = body, state = state, letter = letter,
                    history = history, ended = ended }, over)
    end
    dead_until = first_score(dead_expiry)
    if dead_until then
      redis.call('HSET', meta, 'dead_until', dead_until)
    else
      redis.call('HDEL', meta, 'dead_until')
    end
  end
end
