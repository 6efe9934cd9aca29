-- Publishes the next jobs of the acks and deaths that count, each unless its id is live (THEN-1, THEN-4).
-- Reads  now sent first_next next_count next_queues outcomes, wake
-- Sets   must_wake, must_plan, where they are in the queue of the jobs that ended
-- Cost   O(1) a next job; O(log n) where it is delayed, or in a sorted queue

do
  local woken = {}
  for at = first_next, first_next + 6 * (next_count - 1), 6 do
    local to = next_queues[tonumber(sent[at])]
    local id, priority, delay_ms = sent[at + 2], tonumber(sent[at + 3]), tonumber(sent[at + 4])
    local counts = outcomes[tonumber(sent[at + 1])] == '1'
    if counts and is_expired(to.dead_expiry, id, now) then remove_dead(to, { id }) end
    if counts and redis.call('HSETNX', to.body, id, sent[at + 5]) == 1 then
      if redis.call('HDEL', to.result, id) == 1 then redis.call('ZREM', to.expiry, id) end -- of an earlier job of that id
      local is_news
      if delay_ms > 0 then
        local first = first_score(to.delay)
        redis.call('ZADD', to.delay, now + delay_ms, id)
        if priority > 0 then redis.call('HSET', to.state, id, pack_state(fresh_state(priority))) end
        is_news = not first or now + delay_ms < first
        must_plan = must_plan or is_news and to.wake == wake
      else
        is_news = make_ready(to.kind, to.meta, to.ready, { id }, { fresh_state(priority) }) == 1
        must_wake = must_wake or is_news and to.wake == wake
      end
      if is_news and to.wake ~= wake and not woken[to.wake] then
        woken[to.wake] = true
        wake_up(to.wake)
      end
    end
  end
end
