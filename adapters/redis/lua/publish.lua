#!lua
-- Puts messages into a queue, each once (PUB-1, PUB-4, PUB-5). May not run when memory is short.
-- KEYS  meta body state ready delay wake result expiry history dead dead_expiry letter ended last
-- ARGV  request, keep_ms, ids (as id,id...: one argument is parsed sooner than hundreds), priority:delay_ms of each
--         (likewise; empty where all are 0:0), then the bodies
-- Return a string: 'a' accepted or 'd' duplicate, for each message
-- Error  NOQUEUE, STALE
-- Cost  O(1) a message; O(log n) where it is delayed, or on a sorted queue

local kind = redis.call('HGET', meta, 'kind')
if not kind then return redis.error_reply('NOQUEUE') end

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

--- @include add_messages

local answer = table.concat(answers)
keep_answer(last, ARGV[1], answer, ARGV[2])
return answer
