-- Part of settle.lua and retry.lua: has a job wait for its time (DLY-1).
-- Reads  id, number (the delay, ms), now, delay
-- Sets   must_plan
-- Cost   O(log n)

local first = first_score(delay)
redis.call('ZADD', delay, now + number, id)
must_plan = must_plan or not first or now + number < first
