#!lua flags=allow-oom
-- Settles what a consumer has done, and leases it the next jobs: one step, one round trip (SET, RCV, LSE, RES).
-- KEYS  meta body state ready run delay dead dead_expiry letter history result expiry ended asked wake rwake last
-- ARGV  request, consumer, lease_ms, keep_ms, take, number of runs of plain acks, then token and ids of each (as
--         id,id...: one argument is parsed sooner than hundreds), then op, id, token, text, number of every other
--         settlement:
--         'a' ack: result, ttl_ms · 'r' retry: error, delay_ms · 'd' and the reason: error, ttl_ms (0 for ever) · 'l' release: -, delay_ms
--         · 'c' cancel: -, ttl_ms
-- Return {now, next event, wake id, outcomes, ids, bodies, infos}: outcomes a string of 1, 0 and 2 (cancelled,
--         as was asked), in the order of ARGV; next event (-1 for none) and wake id only where nothing was taken; an info is
--         attempt:number:crashes, empty for a first delivery, ! where the job's record is damaged (it is leased, for
--         the consumer to bury it) or = where it is in flight already (it isn't leased); no infos where all are first
--         deliveries. The token of each lease is consumer:request
-- Error  NOQUEUE, STALE
-- Cost  O(1) a job for ready, O(log n) for leases, delays and sorted queues; at most 500 due and 500 expired a call

--- @include read_request

--- @include replay
--- @include sweep
--- @include settle
--- @include take

--- @include finish_request
