#!lua flags=allow-oom
-- Settles what a consumer has done, and leases it the next jobs: one step, one round trip (SET, RCV, LSE, RES).
-- KEYS  meta body state ready run delay dead letter history result expiry ended wake rwake last
-- ARGV  request, consumer, lease_ms, keep_ms, take, number of runs of plain acks, then token and ids of each (as
--         id,id...: one argument is parsed sooner than hundreds), then op, id, token, text, number of every other
--         settlement:
--         'a' ack: result, ttl_ms · 'r' retry: error, delay_ms · 'd' and the reason: error, - · 'l' release
-- Return {now, next event, wake id, outcomes, ids, bodies, infos}: outcomes a string of 1 and 0, in the order of
--         ARGV; next event (-1 for none) and wake id only where nothing was taken; an info is
--         attempt:number:crashes, empty for a first delivery, ! where the job's record is damaged (it is leased, for
--         the consumer to bury it) or = where it is in flight already (it isn't leased); no infos where all are first
--         deliveries. The token of each lease is consumer:request
-- Error  NOQUEUE, STALE
-- Cost  O(1) a job for ready, O(log n) for leases, delays and sorted queues; at most 500 due and 500 expired a call

local request, consumer, lease_ms, keep_ms, take = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
local about = redis.call('HMGET', meta, 'kind', 'rwait', 'stand')
local kind, waited_until, stand = about[1], tonumber(about[2]), tonumber(about[3])
if not kind then return redis.error_reply('NOQUEUE') end
local now = now_ms()

--- @include replay
--- @include sweep
--- @include settle
--- @include take

-- Whoever waits is to take what came back and is still here, or to plan for a moment that was just set.
if must_plan or (must_wake and (#ids == 0 or ready_count(kind, ready) > 0)) then wake_up(wake) end

local outcome = table.concat(outcomes)
if all_first then infos = {} end
keep_answer(last, request, outcome .. '|' .. #ids .. '|' .. table.concat(ids, ',') .. '|' .. table.concat(infos, ','), keep_ms)
return answer(outcome, ids, infos)
