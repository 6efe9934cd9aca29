#!lua
-- Publishes a message and writes a record, if that has the expected version; else neither (CRD-4). May not run when
-- memory is short.
-- KEYS  last meta body state ready delay wake result expiry history dead dead_expiry letter ended records record_keys record_ends versions
-- ARGV  request, keep_ms, id, priority:delay_ms, body, then of the record: key, expected version, value,
--         for how long in µs ('' for ever)
-- Return 'a' accepted or 'd' duplicate, and the record is written; '' if it has another version: then nothing changed
-- Error  NOQUEUE, STALE
-- Cost  O(log n); removes at most 100 records whose time is over

local kind = redis.call('HGET', meta, 'kind')
if not kind then return redis.error_reply('NOQUEUE') end

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

local key, expected, value, ttl_us = ARGV[6], tonumber(ARGV[7]), ARGV[8], tonumber(ARGV[9])
local now, answer, new_version = now_us(), '', nil
if version_at(redis.call('HGET', records, key), now) == expected then
  --- @include add_messages
  --- @include write_record
  answer = answers[1]
end
keep_answer(last, ARGV[1], answer, ARGV[2])
return answer
