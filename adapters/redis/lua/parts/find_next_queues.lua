-- Finds the queues of next jobs, before anything is written.
-- Reads  KEYS from the 18th on
-- Sets   next_queues (of each its kind and its keys, by name)
-- Cost   O(1) a queue

local next_queues, missing = {}, {}
do
  local NAMES = { 'meta', 'body', 'state', 'ready', 'delay', 'wake', 'result', 'expiry', 'history', 'dead',
                  'dead_expiry', 'letter', 'ended' }
  for first = 18, #KEYS, #NAMES do
    local found = {}
    for i, name in ipairs(NAMES) do found[name] = KEYS[first + i - 1] end
    local TYPES = { 'hash', 'hash', 'hash', 'list', 'zset', 'stream', 'hash', 'zset', 'hash', 'zset', 'zset', 'hash',
                    'list' }
    local is_sound = redis.call('TYPE', found.meta).ok == 'hash'
    found.kind = is_sound and redis.call('HGET', found.meta, 'kind')
    if found.kind ~= 'fifo' then TYPES[4] = 'zset' end
    for i, name in ipairs(NAMES) do
      local is = redis.call('TYPE', found[name]).ok
      is_sound = is_sound and (is == TYPES[i] or is == 'none')
    end
    next_queues[#next_queues + 1] = found
    if not (is_sound and found.kind) then missing[#missing + 1] = #next_queues end
  end
end
if #missing > 0 then return redis.error_reply('NONEXT ' .. table.concat(missing, ',')) end
