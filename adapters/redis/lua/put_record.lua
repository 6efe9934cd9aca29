#!lua
-- Writes a record, if it has the expected version (CRD-1, CRD-2, CRD-3). May not run when memory is short.
-- KEYS  last records record_keys record_ends versions
-- ARGV  request, keep_ms, key, expected version ('' for any), value, for how long in µs ('' for ever)
-- Return the record's new version; '' if it has another than the expected one: then nothing changed
-- Error  STALE
-- Cost  O(log n); removes at most 100 records whose time is over

local before, stale = answered_before(last, ARGV[1])
if stale then return redis.error_reply('STALE') end
if before then return before end

local key, expected, value, ttl_us = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local now, new_version = now_us(), ''
if expected == '' or version_at(redis.call('HGET', records, key), now) == tonumber(expected) then
  --- @include write_record
end
keep_answer(last, ARGV[1], new_version, ARGV[2])
return new_version
