-- Part of settle.lua: notes a failed attempt, and makes the job ready again, at once or after a delay (SET-2, DLY-1).
-- Reads  id, job, text (the error), number (the delay, ms), kind now, meta ready delay history
-- Sets   job.attempt, must_plan, must_wake
-- Cost   O(log n)

local KEPT_HISTORY = 10
local failures = read_history(redis.call('HGET', history, id))
failures[#failures + 1] = { job.attempt, text }
while #failures > KEPT_HISTORY do table.remove(failures, 1) end
redis.call('HSET', history, id, cjson.encode(failures))
job.attempt = job.attempt + 1
if number > 0 then
  --- @include delay_job
else
  must_wake = true
  make_ready(kind, meta, ready, { id }, { job })
end
