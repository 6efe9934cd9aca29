#!lua flags=allow-oom
-- Leases deliveries for another while (LSE-3); changes nothing under a stale token (LSE-4).
-- KEYS  meta state run asked
-- ARGV  lease_ms, then id, token of each delivery
-- Return a string of 1 (extended), 2 (extended, and asked to be cancelled) and 0 (lost)
-- Error  NOQUEUE
-- Cost  O(log n) a delivery

local about = redis.call('HMGET', meta, 'kind', 'stand', 'asked')
if not about[1] then return redis.error_reply('NOQUEUE') end
local now, lease_ms = now_ms(), tonumber(ARGV[1])
local over = over_until(about[2], now)
local ids = {}
for i = 2, #ARGV, 2 do ids[#ids + 1] = ARGV[i] end
local records = redis.call('HMGET', state, unpack(ids))
local ends = redis.call('ZMSCORE', run, unpack(ids))
local outcomes, leases = {}, {}
local requests = about[3] and about[3] ~= '0' and read_asked(asked, ids, records) or {}
for i, id in ipairs(ids) do
  local held = records[i] and ends[i] and string.sub(records[i], RECORD + 1) == ARGV[2 * i + 1]
  if held and tonumber(ends[i]) > over then
    outcomes[i] = requests[id] and '2' or '1'
    leases[#leases + 1] = now + lease_ms
    leases[#leases + 1] = id
  else
    outcomes[i] = '0'
  end
end
if #leases > 0 then redis.call('ZADD', run, unpack(leases)) end
return table.concat(outcomes)
