#!lua
-- As settle_and_take.lua, and publishes the next jobs of the acks and deaths that count (THEN-2, THEN-4). May not run when memory is short.
-- KEYS  meta body state ready run delay dead dead_expiry letter history result expiry ended asked wake rwake last
--         and behind these of each queue of next jobs: meta body state ready delay wake result expiry history
--         dead dead_expiry letter ended
-- ARGV  those of settle_and_take.lua, then of each next job: the number of its queue, the number of its ack or death
--         among the outcomes, id, priority, delay_ms, body; and last how many next jobs there are. Numbers count from 1
-- Return as settle_and_take.lua
-- Error  NOQUEUE, STALE; NONEXT and the numbers of the queues that aren't there, or are damaged: nothing was done
-- Cost  that of settle_and_take.lua, and O(1) a next job; O(log n) where it is delayed, or in a sorted queue

local sent = ARGV
local next_count = tonumber(sent[#sent])
local first_next = #sent - 6 * next_count
local ARGV = {}
for i = 1, first_next - 1 do ARGV[i] = sent[i] end

--- @include read_request

--- @include replay
--- @include find_next_queues
--- @include sweep
--- @include settle
--- @include publish_next
--- @include take

--- @include finish_request
